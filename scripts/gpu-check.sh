#!/usr/bin/env bash
# Everything that needs a GPU: tests, compute-sanitizer, benchmarks with their baselines.
#
#   scripts/gpu-check.sh pack [FOLDER]    where nvcc is: builds, and puts programs and libraries into
#                                         FOLDER (build/gpu-check), to be carried to a machine that
#                                         has a GPU and neither nvcc nor gRPC
#   scripts/gpu-check.sh STAGE...         on the machine with the GPU, of tests, sanitizer, bench
#   scripts/gpu-check.sh                  all of these
#
# CHECK names the folder (build/gpu-check); RESULTS where JSON lines go (CHECK/results). The benches'
# baseline needs a Python with PyTorch, and compute-sanitizer is skipped where it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

check=${CHECK:-build/gpu-check}
results=${RESULTS:-$check/results}
programs=(kernels/cuda/device/device_step_test models/evabyte/device_backend_test bench/gpu/gpu_bench)

pack() {
  local folder=${1:-$check} program
  scripts/setup.sh --cuda
  scripts/build.sh cuda device_step_test device_backend_test gpu_bench
  rm -rf "$folder"
  mkdir -p "$folder/lib" "$folder/golden"
  for program in "${programs[@]}"; do
    cp "build/cuda/$program" "$folder/"
    # All but cuBLASLt, which is large and comes with every PyTorch for CUDA.
    ldd "build/cuda/$program" | grep -oE '/[^ ]*(absl|gtest|gmock|boost)[^ ]*' |
      xargs -r cp -t "$folder/lib" -u
  done
  cp -r "${EVASERVE_GOLDEN_DIR:-../shared/golden}"/evabyte* "$folder/golden/"
}

# The folder of PyTorch's CUDA libraries, if there is one.
cuda_libraries() {
  python3 -c 'import nvidia.cu13, os; print(os.path.join(list(nvidia.cu13.__path__)[0], "lib"))' \
    2> /dev/null || echo "$PWD/.deps/cublas/nvidia/cu13/lib"
}

run() { LD_LIBRARY_PATH="$PWD/$check/lib:$(cuda_libraries)" "$@"; }

tests() {
  EVASERVE_GOLDEN_DIR="$PWD/$check/golden" run "$check/device_step_test"
  EVASERVE_GOLDEN_DIR="$PWD/$check/golden" run "$check/device_backend_test"
}

sanitizer() {
  local tool
  command -v compute-sanitizer > /dev/null || { echo "no compute-sanitizer: skipped"; return 0; }
  for tool in memcheck racecheck synccheck; do
    run compute-sanitizer --tool "$tool" --error-exitcode 1 "$check/device_step_test" \
      --gtest_filter='*TakesFloat16*:*SameBits*'
  done
}

bench() {
  mkdir -p "$results"
  run "$check/gpu_bench" | tee "$results/gpu_bench.jsonl"
  if python3 -c 'import torch' 2> /dev/null; then
    python3 bench/gpu/torch_baseline.py | tee "$results/torch_baseline.jsonl"
  else
    echo "no PyTorch: no baseline"
  fi
}

# The tests skip what they have no device for.
need_gpu() { nvidia-smi -L || { echo "gpu-check.sh: nvidia-smi finds no GPU" >&2; exit 1; }; }

case ${1:-} in
  pack) pack "${@:2}" ;;
  "") need_gpu && tests && sanitizer && bench ;;
  *) need_gpu
     for stage in "$@"; do
       case $stage in
         tests | sanitizer | bench) "$stage" ;;
         *) echo "gpu-check.sh knows pack, tests, sanitizer and bench, not $stage" >&2; exit 2 ;;
       esac
     done ;;
esac
