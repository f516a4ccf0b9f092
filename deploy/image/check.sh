#!/usr/bin/env bash
# Builds an image, if told so, and tries it as a cluster would run it: not root, nothing writable,
# no rights. Needs podman, and buildah to build.
#
#   deploy/image/check.sh IMAGE [TARGET [BASE]]
#
# With a TARGET of the Dockerfile (cpu, cuda, demo) the image is built first, on BASE (what the
# Dockerfile says). ENGINE_FLAGS are for podman and buildah, before the command;
# BUILD_FLAGS and RUN_FLAGS for their commands. Ends with 77 where a program or BASE is missing.
set -euo pipefail
cd "$(dirname "$0")/../.."

image=${1:?the name of an image}
target=${2:-}
base=${3:-$(sed -n 's/^ARG BASE=//p' Dockerfile)}
read -ra engine_flags <<< "${ENGINE_FLAGS:-}"
read -ra build_flags <<< "${BUILD_FLAGS:-}"
read -ra run_flags <<< "${RUN_FLAGS:-}"

podman() { command podman "${engine_flags[@]}" "$@"; }
skip() { echo "skipped: $*"; exit 77; }
fail() { echo "check.sh: $*" >&2; exit 1; }
passed() { echo "ok: $*"; }

build() {
  command -v buildah > /dev/null || skip "no buildah"
  podman image exists "$base" || podman pull --quiet "$base" > /dev/null ||
    skip "$base cannot be had"
  buildah "${engine_flags[@]}" build --layers --format docker "${build_flags[@]}" \
    --build-arg BASE="$base" --build-arg REVISION="$(git rev-parse HEAD 2> /dev/null || true)" \
    --target "$target" --tag "$image" .
}

of_image() { podman image inspect --format "{{$1}}" "$image"; }
of_container() { podman container inspect --format "{{$1}}" "$container"; }
in_container() { podman exec "$container" "$@"; }

check_config() {
  [ "$(of_image .Config.User)" = 1000:1000 ] || fail "the user is $(of_image .Config.User)"
  [ "$(of_image .Config.StopSignal)" = SIGTERM ] || fail "no stop signal"
  [[ $(of_image .Config.ExposedPorts) == *8001/tcp*8002/tcp* ]] || fail "the ports are not told"
  [[ $(of_image .Config.Labels) == *org.opencontainers.image.title:evaserve* ]] || fail "no labels"
  passed "$image: $(($(of_image .Size) >> 20)) MiB"
}

start() {
  container=$(podman run --detach --no-healthcheck --network none --read-only --cap-drop ALL \
    --security-opt no-new-privileges --volume "$PWD/demo/model:/models/demo:ro" \
    "${run_flags[@]}" "$image" --model demo=/models/demo --threads 1)
  trap 'podman rm --force --time 0 "$container" > /dev/null 2>&1 || true' EXIT
  in_container /usr/bin/eva health --wait 60 > /dev/null || { podman logs "$container"; exit 1; }
  passed "it serves, without root, rights or a place to write"
}

check_process() {
  local pid root
  pid=$(of_container .State.Pid)
  grep -qP '^Uid:\t1000\t1000\t1000\t1000$' "/proc/$pid/status" || fail "it runs as another user"
  grep -qP '^CapEff:\t0+$' "/proc/$pid/status" || fail "it has capabilities"
  root=/proc/$pid/root
  for shell in bin/sh usr/bin/sh bin/bash usr/bin/bash; do
    [ ! -e "$root/$shell" ] || fail "there is /$shell"
  done
  passed "uid 1000, no capabilities, no shell"
}

# As Docker would call it. podman itself needs systemd for that.
check_health() {
  local command
  mapfile -t command < <(podman image inspect --format '{{json .HealthCheck.Test}}' "$image" |
    python3 -c 'import json, sys; print(*json.load(sys.stdin)[1:], sep="\n")')
  [ ${#command[@]} -gt 1 ] || fail "no health check"
  in_container "${command[@]}" > /dev/null || fail "the health check fails"
  passed "the health check: ${command[*]}"
}

check_calls() {
  local text
  text=$(in_container /usr/bin/eva generate "The " --temperature 0 --max-tokens 40 --ignore-eos |
    wc -c)
  [ "$text" -ge 40 ] || fail "a completion of $text bytes"
  in_container /usr/bin/eva score /models/demo/config.json | grep -q 'bits per byte' ||
    fail "no score"
  passed "a completion and a score"
}

# A request in flight is finished after SIGTERM, and the exit code is 0.
check_end() {
  local answer
  answer=$(mktemp)
  in_container /usr/bin/eva generate "The " --temperature 0 --max-tokens 4000 --ignore-eos \
    > "$answer" &
  local call=$!
  until [ -s "$answer" ]; do
    kill -0 $call 2> /dev/null || fail "the call has ended already"
    sleep 0.01
  done
  podman kill --signal TERM "$container" > /dev/null
  wait $call || fail "a request in flight was lost"
  [ "$(wc -c < "$answer")" -ge 4000 ] || fail "a request in flight was cut"
  rm "$answer"
  local code
  code=$(podman wait "$container")
  [ "$code" = 0 ] || fail "the exit code after SIGTERM is $code"
  passed "SIGTERM: the request in flight was finished, exit code 0"
}

command -v podman > /dev/null || skip "no podman"
[ -z "$target" ] || build
check_config
start
check_process
check_health
check_calls
check_end
