# nvcc and cuobjdump as scripts/setup.sh installs them, else the system's.
set(cuda_dir "${CMAKE_SOURCE_DIR}/.deps/cuda/nvidia/cu13")
find_program(EVASERVE_NVCC nvcc HINTS "${cuda_dir}/bin" PATHS /usr/local/cuda/bin)
find_program(EVASERVE_CUOBJDUMP cuobjdump HINTS "${cuda_dir}/bin" PATHS /usr/local/cuda/bin)

if(EVASERVE_CUDA)
  set(cublas_dir "${CMAKE_SOURCE_DIR}/.deps/cublas/nvidia/cu13")
  find_path(EVASERVE_CUBLASLT_INCLUDE_DIR cublasLt.h
    HINTS "${cublas_dir}/include" PATHS /usr/local/cuda/include)
  find_library(EVASERVE_CUBLASLT NAMES libcublasLt.so.13 cublasLt
    HINTS "${cublas_dir}/lib" PATHS /usr/local/cuda/lib64)
  foreach(found EVASERVE_NVCC EVASERVE_CUBLASLT EVASERVE_CUBLASLT_INCLUDE_DIR)
    if(NOT ${found})
      message(FATAL_ERROR "EVASERVE_CUDA needs nvcc and cuBLASLt (no ${found}). "
        "Run scripts/setup.sh --cuda")
    endif()
  endforeach()

  set(CMAKE_CUDA_COMPILER "${EVASERVE_NVCC}")
  set(CMAKE_CUDA_ARCHITECTURES 80-real 89-real 90-real 90-virtual)
  enable_language(CUDA)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")  # which CMake 3.25 does not know
  # CUDA 13 has no such library any more, and CMake 3.25 insists on it.
  if(NOT TARGET CUDA::nvToolsExt)
    add_library(CUDA::nvToolsExt INTERFACE IMPORTED)
  endif()
  find_package(CUDAToolkit 13 REQUIRED QUIET)

  # The library itself is loaded when a device is opened.
  add_library(evaserve_cublaslt INTERFACE)
  add_library(evaserve::cublaslt ALIAS evaserve_cublaslt)
  target_include_directories(evaserve_cublaslt SYSTEM INTERFACE "${EVASERVE_CUBLASLT_INCLUDE_DIR}")
endif()
