#!/usr/bin/env bash
# Everything that needs a GPU: tests, compute-sanitizer, benchmarks with their baselines, a server.
#
#   scripts/gpu-check.sh pack [FOLDER]    where nvcc is: builds, and puts programs, libraries and the
#                                         demo model into FOLDER (build/gpu-check), to be carried to
#                                         a machine that has a GPU and neither nvcc nor gRPC
#   scripts/gpu-check.sh STAGE...         on the machine with the GPU, of wrappers, tests, torch,
#                                         sanitizer, bench, server
#   scripts/gpu-check.sh                  all of these, in this order
#
# CHECK names the folder (build/gpu-check); RESULTS where JSON lines and the report go
# (CHECK/results); DEVICE what the server runs on (cuda:0). With DEVICE=cpu the stage `server` needs
# no GPU, and shows that the folder is complete. The stage `torch` and the benches' baselines need a
# Python with PyTorch, and compute-sanitizer is skipped where it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

check=${CHECK:-build/gpu-check}
results=${RESULTS:-$check/results}
device=${DEVICE:-cuda:0}
stages=(wrappers tests torch sanitizer bench server)
programs=(kernels/cuda/device/device_wrapper_test kernels/cuda/device/device_step_test
  kernels/cuda/device/device_windows_test kernels/device_torch_ops_test
  models/evabyte/device_backend_test bench/gpu/gpu_bench bench/gpu/windows_bench
  bench/gpu/model_bench bin/evaserve bin/eva)
torch_ops=kernels/libevaserve_torch_ops.so

# The libraries of a program that a machine without our packages lacks. cuBLASLt is not among them,
# nor LibTorch with what lies beside it: they are large, and come with every PyTorch for CUDA.
own_libraries() {
  ldd "$1" | awk '$3 ~ "^/" { print $3 }' |
    grep -vE '/(lib(c|m|dl|rt|util|pthread|resolv|stdc\+\+|gcc_s|cuda|cublasLt)|ld-linux.*)\.so|/torch/lib/'
}

pack() {
  local folder=${1:-$check} program
  scripts/setup.sh --cuda
  scripts/build.sh cuda "${programs[@]##*/}" evaserve_torch_ops
  rm -rf "$folder"
  mkdir -p "$folder/lib" "$folder/golden" "$folder/demo"
  for program in "${programs[@]}" "$torch_ops"; do
    cp "build/cuda/$program" "$folder/"
    own_libraries "build/cuda/$program" | xargs -r cp -t "$folder/lib" -u
  done
  cp -r "${EVASERVE_GOLDEN_DIR:-../shared/golden}"/{evabyte,eva_noncausal,eva_causal}* \
    "$folder/golden/"
  cp -r demo/model demo/passage-1.txt "$folder/demo/"
  find "$folder" -maxdepth 1 -type f -exec strip {} +  # it is to be carried
}

# The folder of PyTorch's CUDA libraries, if there is one.
cuda_libraries() {
  python3 -c 'import nvidia.cu13, os; print(os.path.join(list(nvidia.cu13.__path__)[0], "lib"))' \
    2> /dev/null || echo "$PWD/.deps/cublas/nvidia/cu13/lib"
}

# With torch_libraries, the folder of LibTorch, where a stage has set it.
run() {
  LD_LIBRARY_PATH="$(realpath "$check")/lib:$(cuda_libraries)${torch_libraries:+:$torch_libraries}" \
    "$@"
}

wrappers() { run "$check/device_wrapper_test"; }

tests() {
  local test
  for test in device_step_test device_windows_test device_backend_test; do
    EVASERVE_GOLDEN_DIR=$(realpath "$check/golden") run "$check/$test"
  done
}

torch() {
  local library torch_libraries=
  library=$(realpath "$check/${torch_ops##*/}")
  python3 -c 'import torch' 2> /dev/null || { echo "no PyTorch: skipped"; return 0; }
  run python3 tests/python/torch_export_test.py "$library"
  torch_libraries=$(python3 -c 'import torch; print(torch.__path__[0] + "/lib")')
  EVASERVE_TORCH_OPS=$library run "$check/device_torch_ops_test"
}

sanitizer() {
  local tool
  command -v compute-sanitizer > /dev/null || { echo "no compute-sanitizer: skipped"; return 0; }
  for tool in memcheck racecheck synccheck; do
    run compute-sanitizer --tool "$tool" --error-exitcode 1 "$check/device_step_test" \
      --gtest_filter='*TakesFloat16*:*SameBits*'
    run compute-sanitizer --tool "$tool" --error-exitcode 1 "$check/device_windows_test" \
      --gtest_filter='*AddsABias*:*SameBits*:*CausalSteps*'
  done
}

bench() {
  mkdir -p "$results"
  rm -f "$results"/*.jsonl
  run "$check/gpu_bench" | tee "$results/gpu_bench.jsonl"
  run "$check/windows_bench" | tee "$results/windows_bench.jsonl"
  run "$check/model_bench" | tee "$results/model_bench.jsonl"
  if python3 -c 'import torch' 2> /dev/null; then
    python3 bench/gpu/baselines.py | tee "$results/baselines.jsonl"
    python3 bench/gpu/windows_baseline.py | tee "$results/windows_baseline.jsonl"
  else
    echo "no PyTorch: no baseline"
  fi
  python3 bench/gpu/report.py "$results"/*.jsonl | tee "$results/report.md"
}

# expect WHAT PATTERN FILE
expect() {
  grep -qE "$2" "$3" || { echo "gpu-check.sh: did not find $1 ($2) in:" >&2; cat "$3" >&2; return 1; }
  echo "found $1"
}

# The demo model, a completion and a score, the metrics, and the end.
server() {
  local log=$results/server.log out=$results/server.out server=
  [ -x "$check/evaserve" ] || { echo "no packed server: skipped"; return 0; }
  mkdir -p "$results"
  run exec "$check/evaserve" --model demo="$check/demo/model" --device "$device" \
    --address 127.0.0.1:0 --metrics-address 127.0.0.1:0 2> "$log" &
  server=$!
  # shellcheck disable=SC2064  # the number of now
  trap "kill $server 2> /dev/null || true" EXIT
  port() { grep -o "$1=127.0.0.1:[0-9]*" "$log" | head -n 1 | cut -d: -f2; }
  for _ in $(seq 600); do
    [ -n "$(port metrics)" ] && break
    kill -0 $server 2> /dev/null || break
    sleep 0.1
  done
  expect "the model on $device" "loaded model=demo .*device=$device " "$log"

  EVA_SERVER="127.0.0.1:$(port grpc)"
  export EVA_SERVER
  run "$check/eva" health --wait 30
  run "$check/eva" generate "The " --max-tokens 40 --temperature 0 --stats | tee "$out"
  echo
  expect "a completion" . "$out"
  run "$check/eva" score "$check/demo/passage-1.txt" | tee "$out"
  expect "a score" 'bits per byte' "$out"

  exec 3<> "/dev/tcp/127.0.0.1/$(port metrics)"
  printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
  cat <&3 > "$out"
  exec 3>&-
  expect "the completion's metrics" 'requests_total\{code="OK",method="Generate",model="demo"\} 1' \
    "$out"

  kill -TERM $server
  wait $server ||
    { echo "gpu-check.sh: the server has left with status $?" >&2; cat "$log" >&2; return 1; }
  trap - EXIT
  echo "the server has left with status 0"
}

# The tests skip what they have no device for.
need_gpu() {
  [ "$device" = cpu ] || nvidia-smi -L ||
    { echo "gpu-check.sh: nvidia-smi finds no GPU" >&2; exit 1; }
}

if [ "${1:-}" = pack ]; then
  pack "${@:2}"
  exit
fi
[ $# -eq 0 ] && set -- "${stages[@]}"
for stage in "$@"; do
  [[ " ${stages[*]} " == *" $stage "* ]] ||
    { echo "gpu-check.sh knows pack, ${stages[*]}, not $stage" >&2; exit 2; }
done
need_gpu
for stage in "$@"; do "$stage"; done
