# Everything but LibTorch comes from the distribution (scripts/setup.sh installs it).
find_package(Threads REQUIRED)
find_package(absl REQUIRED)
find_package(Protobuf REQUIRED)
find_package(gRPC CONFIG REQUIRED)  # and RE2 with it
find_package(OpenSSL REQUIRED)
find_package(ZLIB REQUIRED)
find_package(spdlog REQUIRED)
find_package(prometheus-cpp CONFIG REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(PNG REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(turbojpeg REQUIRED IMPORTED_TARGET libturbojpeg)
if(EVASERVE_BUILD_TESTS)
  find_package(GTest REQUIRED)
  find_package(Boost REQUIRED COMPONENTS context)  # fibers, for the emulator of CUDA kernels
  include(GoogleTest)
endif()
if(EVASERVE_BUILD_BENCH)
  find_package(benchmark REQUIRED)
endif()

# The CPU parts of LibTorch, linked by name: find_package(Torch) would drag CUDA in.
if(EXISTS "${EVASERVE_TORCH_DIR}/include/torch/library.h")
  set(EVASERVE_HAS_TORCH ON)
  add_library(evaserve_torch INTERFACE)
  add_library(evaserve::torch ALIAS evaserve_torch)
  target_include_directories(evaserve_torch SYSTEM INTERFACE
    "${EVASERVE_TORCH_DIR}/include"
    "${EVASERVE_TORCH_DIR}/include/torch/csrc/api/include")
  target_link_directories(evaserve_torch INTERFACE "${EVASERVE_TORCH_DIR}/lib")
  target_link_libraries(evaserve_torch INTERFACE
    "${EVASERVE_TORCH_DIR}/lib/libtorch_cpu.so" "${EVASERVE_TORCH_DIR}/lib/libc10.so")
  # The wheel's CUDA build loads libcudart and libcupti even where it runs on the CPU alone.
  target_link_options(evaserve_torch INTERFACE "LINKER:--allow-shlib-undefined")

  # CUDA's streams and guards. They need nothing besides but the libcudart above.
  if(EVASERVE_CUDA AND EXISTS "${EVASERVE_TORCH_DIR}/lib/libc10_cuda.so")
    set(EVASERVE_HAS_TORCH_CUDA ON)
    set(cudart_dir "${EVASERVE_TORCH_DIR}/../nvidia/cu13")
    find_library(EVASERVE_TORCH_CUDART NAMES libcudart.so.13 REQUIRED
      HINTS "${cudart_dir}/lib" PATHS /usr/local/cuda/lib64)
    find_path(EVASERVE_TORCH_CUDART_INCLUDE_DIR cuda_runtime_api.h REQUIRED
      HINTS "${cudart_dir}/include" PATHS /usr/local/cuda/include)
    add_library(evaserve_torch_cuda INTERFACE)
    add_library(evaserve::torch_cuda ALIAS evaserve_torch_cuda)
    target_include_directories(evaserve_torch_cuda SYSTEM INTERFACE
      "${EVASERVE_TORCH_CUDART_INCLUDE_DIR}")
    target_link_libraries(evaserve_torch_cuda INTERFACE evaserve::torch
      "${EVASERVE_TORCH_DIR}/lib/libc10_cuda.so" "${EVASERVE_TORCH_CUDART}")
  endif()
else()
  set(EVASERVE_HAS_TORCH OFF)
  message(STATUS "No LibTorch in ${EVASERVE_TORCH_DIR}: torch.ops.eva is not built")
endif()
