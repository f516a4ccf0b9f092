#!/usr/bin/env bash
# Installs what evaserve needs on Debian 12 or Ubuntu 24.04. Does nothing the second time.
#
#   scripts/setup.sh          to build and run: compilers, gRPC and the other libraries
#   scripts/setup.sh --test   also what tests need: LibTorch, nvcc, Python clients, style checkers,
#                             Prometheus, nginx, what reads deploy/, and PyTorch (5.5 GB)
#   scripts/setup.sh --torch  also LibTorch, which runs packages
#   scripts/setup.sh --cuda   also what EVASERVE_CUDA needs: nvcc and cuBLASLt
set -euo pipefail
cd "$(dirname "$0")/.."

build_packages=(
  build-essential ca-certificates ccache cmake curl git mold ninja-build pkg-config python3 xz-utils
  libabsl-dev libbenchmark-dev libboost-context-dev libcivetweb-dev libcli11-dev libgmock-dev
  libgrpc++-dev libgtest-dev
  libpng-dev libprotobuf-dev libre2-dev libspdlog-dev libssl-dev libturbojpeg0-dev nlohmann-json3-dev prometheus-cpp-dev protobuf-compiler
  protobuf-compiler-grpc zlib1g-dev
)
test_packages=(
  clang-14 clang-format-14 clang-tidy-14 libclang-rt-14-dev python3-pip python3-venv
  docker-compose golang-go golang-github-ghodss-yaml-dev golang-github-masterminds-sprig-dev
)
# Unpacked, not installed: an installed one would be started.
unpacked_packages=(nginx prometheus)

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

installed() { dpkg-query -W -f '${Status}\n' "$1" 2> /dev/null | grep -q '^install ok installed$'; }

install_packages() {
  local missing=()
  for package in "$@"; do installed "$package" || missing+=("$package"); done
  [ ${#missing[@]} -eq 0 ] && return
  echo "installing: ${missing[*]}"
  as_root apt-get update -q
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -q --no-install-recommends "${missing[@]}"
}

# done_already STAMP FILE...: whether STAMP was made from the same FILEs
done_already() { [ -f "$1" ] && [ "$(cat "$1")" = "$(cat "${@:2}" | sha256sum)" ]; }
mark_done() { cat "${@:2}" | sha256sum > "$1"; }

# unpack_packages PACKAGE...: into .deps/packages
unpack_packages() {
  local folder=.deps/packages stamp=.deps/packages.stamp downloads
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$*" ] && return
  rm -rf "$folder"
  mkdir -p "$folder"
  downloads=$(mktemp -d)
  as_root apt-get update -q
  (cd "$downloads" && apt-get download -q "$@")
  for package in "$downloads"/*.deb; do dpkg-deb --extract "$package" "$folder"; done
  rm -r "$downloads"
  echo "$*" > "$stamp"
}

# install_wheels NAME FOLDER: unpacks what scripts/requirements-NAME.txt lists
install_wheels() {
  local requirements=scripts/requirements-$1.txt folder=.deps/$2 stamp=.deps/$1.stamp machine
  done_already "$stamp" "$requirements" && return
  machine=$(uname -m)
  rm -rf "$folder"
  # The C++ parts are the same for every Python, so the wheel is always that of one version.
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
    --require-hashes --no-deps --only-binary=:all: --python-version 3.11 --implementation cp \
    --platform "manylinux_2_28_$machine" --platform "manylinux_2_27_$machine" \
    --platform "manylinux_2_25_$machine" --platform "manylinux2014_$machine" \
    --platform "manylinux_2_17_$machine" --target "$folder" --requirement "$requirements"
  mark_done "$stamp" "$requirements"
}

install_nvcc() {
  install_wheels cuda cuda
  ln -sfn lib .deps/cuda/nvidia/cu13/lib64  # where nvcc looks for libraries
  ln -sfn libcudart.so.13 .deps/cuda/nvidia/cu13/lib/libcudart.so  # as CMake looks for it
}

# make_venv FOLDER FILE...: a virtual environment with the packages of the FILEs
make_venv() {
  local folder=$1 stamp=$1/requirements.stamp lists=("${@:2}")
  done_already "$stamp" "${lists[@]}" && return
  rm -rf "$folder"
  python3 -m venv "$folder"
  "$folder/bin/pip" install --quiet --disable-pip-version-check "${lists[@]/#/--requirement=}"
  mark_done "$stamp" "${lists[@]}"
}

install_python_packages() {
  make_venv .venv client/python/requirements.txt tests/deploy/requirements.txt \
    tests/conformance/requirements.txt
  make_venv .deps/pytorch scripts/requirements-pytorch.txt
  # Their stubs have the same names.
  make_venv .deps/kserve tests/conformance/requirements-kserve.txt
  make_venv .deps/mlserver tests/conformance/requirements-mlserver.txt
}

install_packages "${build_packages[@]}"
for wanted in "$@"; do
  case $wanted in
    --test)
      install_packages "${test_packages[@]}"
      unpack_packages "${unpacked_packages[@]}"
      install_wheels libtorch site
      install_nvcc
      install_wheels cutlass cutlass
      install_python_packages
      ;;
    --torch)
      install_packages python3-pip
      install_wheels libtorch site
      ;;
    --cuda)
      install_packages python3-pip
      install_nvcc
      install_wheels cublas cublas
      ;;
    *)
      echo "setup.sh knows --test, --torch and --cuda, not $wanted" >&2
      exit 2
      ;;
  esac
done
