#!/usr/bin/env bash
# Runs clang-tidy with .clang-tidy's checks over the sources that a build compiles, but tests and
# generated code, those that changed last first.
#
#   tools/tidy.sh BUILD_DIR                     looks at them in BUILD_DIR/tidy, one by one
#   CHECK_MINUTES=8 tools/tidy.sh BUILD_DIR     begins with no further file after so many minutes
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:?usage: tools/tidy.sh BUILD_DIR}/tidy

# How each source is compiled by itself, which the build need not do (CMAKE_UNITY_BUILD).
mapfile -t options < <(grep -E '^EVASERVE_(CUDA|TORCH_DIR):' "$1/CMakeCache.txt" | sed 's/^/-D/')
cmake --preset release -B "$build" -DCMAKE_UNITY_BUILD=OFF "${options[@]}" --log-level=WARNING \
  > /dev/null
cmake --build "$build" --target proto_sources

# In the order of their last commits; then all, as there may be no history.
by_age() {
  git log --format= --name-only -- '*.cc'
  git ls-files '*.cc'
}

sources() {
  by_age | awk '!seen[$0]++' | grep -v '_test\.cc$' | while read -r file; do
    ! grep -qF "\"file\": \"$PWD/$file\"" "$build/compile_commands.json" || echo "$file"
  done
}

check() {
  [ "$END_TIME" = "" ] || [ "$(date +%s)" -lt "$END_TIME" ] || return 0
  echo "$2" >> "$CHECKED"
  # Options of g++ that clang does not know are not worth a word.
  clang-tidy-14 -p "$1" --quiet --extra-arg=-Wno-unknown-warning-option "$2"
}
export -f check

END_TIME=${CHECK_MINUTES:+$(($(date +%s) + 60 * CHECK_MINUTES))}
CHECKED=$(mktemp)
export END_TIME CHECKED
trap 'rm -f "$CHECKED"' EXIT

mapfile -t files < <(sources)
failed=0
printf '%s\n' "${files[@]}" |
  xargs -P "$(nproc)" -I FILE bash -c 'check "$0" FILE' "$build" || failed=1
echo "clang-tidy: $(wc -l < "$CHECKED") of ${#files[@]} files"
exit $failed
