#!/usr/bin/env bash
# Puts programs, and what they need of Debian, into a folder that becomes the root of an image.
#
#   [LIBRARIES="FILE..."] deploy/image/collect.sh ROOT PROGRAM...
#
# LIBRARIES are those that the programs load by themselves.
#
# Of each Debian package that a file comes from, its entry in dpkg's database and its licence go
# along: scanners of images read the one, lawyers the other.
set -euo pipefail

root=$1
shift
libraries=usr/lib/$(uname -m)-linux-gnu

# Debian knows some libraries by their place before /lib became a link to /usr/lib.
package_of() { { dpkg -S "$1" || dpkg -S "${1#/usr}" || true; } 2> /dev/null | cut -d: -f1; }

# take FILE [PLACE]: and note the package that it comes from
take() {
  local place=$root/${2:-$1} package
  [ -e "$place" ] && return
  install -D --mode="$(stat -L -c %a "$1")" "$1" "$place"
  package=$(package_of "$(realpath "$1")")
  [ -n "$package" ] || return 0  # ours, or from a wheel
  mkdir -p "$root/var/lib/dpkg/status.d" "$root/usr/share/doc/$package"
  dpkg-query --status "$package" > "$root/var/lib/dpkg/status.d/$package"
  cp -L "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/" 2> /dev/null || true
}

# What a program or a library loads.
take_needed() {
  # "NAME => PATH (ADDRESS)", and the loader as "PATH (ADDRESS)", which stays where it is
  while read -r name arrow path _; do
    case $name in
      /*) take "$name" ;;
      *) [ "$arrow" != '=>' ] || take "$path" "$libraries/$name" ;;
    esac
  done < <(ldd "$1")
}

for program in "$@"; do
  take "$program" "usr/bin/$(basename "$program")"
  take_needed "$program"
done

for library in ${LIBRARIES:-}; do
  take "$library" "$libraries/$(basename "$library")"
  take_needed "$library"
done

for file in /etc/{debian_version,nsswitch.conf,os-release} /etc/ssl/certs/ca-certificates.crt; do
  take "$file"
done
echo 'evaserve:x:1000:1000::/:/usr/sbin/nologin' > "$root/etc/passwd"
echo 'evaserve:x:1000:' > "$root/etc/group"
mkdir -p "$root/models"
