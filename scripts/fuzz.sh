#!/usr/bin/env bash
# Builds the fuzz targets of tests/fuzz with clang and runs each for SECONDS (60), two at a time.
#
#   scripts/fuzz.sh [TARGET...]      for example: SECONDS_EACH=600 scripts/fuzz.sh infer_request
#
# What makes one fail is left in build/fuzz/found; put it into tests/fuzz/seeds/TARGET with the fix.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${SECONDS_EACH:-60}
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(generate_request image infer_request model_config safetensors words)

cmake --preset fuzz
cmake --build build/fuzz --target "${targets[@]/%/_fuzz}"
mkdir -p build/fuzz/found

fuzz() {
  local corpus=build/fuzz/corpus/$1
  mkdir -p "$corpus"
  echo "fuzzing $1 for $seconds s"
  "build/fuzz/tests/fuzz/$1_fuzz" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
    -max_len=65536 -artifact_prefix="build/fuzz/found/$1-" "$corpus" "tests/fuzz/seeds/$1" \
    > "build/fuzz/$1.log" 2>&1 || { tail -40 "build/fuzz/$1.log" >&2; return 1; }
  tail -1 "build/fuzz/$1.log"
}

failed=0
for ((i = 0; i < ${#targets[@]}; i += 2)); do
  pids=()
  for target in "${targets[@]:i:2}"; do fuzz "$target" & pids+=($!); done
  for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
done
exit $failed
