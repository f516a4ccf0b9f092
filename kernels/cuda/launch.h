#pragma once

// Starting kernels, in the same words on a device and in the emulator. A .cu file of this folder is
// compiled by nvcc for devices, and as plain C++ for the emulator.

#include <cstdint>
#include <string>

#include "kernels/cuda/ptx.h"

namespace evaserve {

struct LaunchShape {
  int64_t num_blocks = 0;
  int block_size = 0;  // threads
  int shared_bytes = 0;
};

// A matrix of halves in device memory from which CopyBox() copies.
struct TensorMapShape {
  const void* data = nullptr;
  int64_t num_columns = 0;
  int64_t num_rows = 0;
  int64_t row_stride = 0;  // elements, a multiple of 8
  int box_columns = 0;     // 32 or 64
  int box_rows = 0;
};

#if defined(__CUDACC__)

using GpuStream = cudaStream_t;

// Empty, or what went wrong.
template <typename Args>
std::string LaunchKernel(void (*kernel)(Args), const LaunchShape& shape, const Args& args,
                         GpuStream stream) {
  cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape.shared_bytes);
  if (error == cudaSuccess && shape.num_blocks > 0) {
    kernel<<<static_cast<unsigned>(shape.num_blocks), shape.block_size, shape.shared_bytes,
             stream>>>(args);
    error = cudaGetLastError();
  }
  return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

inline std::string MakeTensorMap(const TensorMapShape& shape, ptx::TensorMap* map) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                             12000, cudaEnableDefault, &found);
  if (error != cudaSuccess) return cudaGetErrorString(error);
  if (function == nullptr) return "the driver has no cuTensorMapEncodeTiled";
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(shape.num_columns),
                              static_cast<cuuint64_t>(shape.num_rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(shape.row_stride) * 2};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(shape.box_columns),
                            static_cast<cuuint32_t>(shape.box_rows)};
  const cuuint32_t steps[] = {1, 1};
  // Bits are copied, so the type of 16 bits does not matter.
  const CUresult result = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function)(
      map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, const_cast<void*>(shape.data), sizes, strides, box,
      steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      shape.box_columns == 64 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? "" : "cuTensorMapEncodeTiled: " + std::to_string(result);
}

#else

struct EmulatedStream {
  uint64_t schedule = 1;  // seed of the next launch
};
using GpuStream = EmulatedStream*;

template <typename Args>
std::string LaunchKernel(void (*kernel)(Args), const LaunchShape& shape, const Args& args,
                         GpuStream stream) {
  const absl::Status status =
      emulator::Launch({static_cast<int>(shape.num_blocks), shape.block_size,
                        static_cast<size_t>(shape.shared_bytes), ++stream->schedule},
                       [&] { kernel(args); });
  return std::string(status.message());
}

inline std::string MakeTensorMap(const TensorMapShape& shape, ptx::TensorMap* map) {
  *map = {static_cast<const uint16_t*>(shape.data),
          static_cast<int>(shape.num_columns),
          static_cast<int>(shape.num_rows),
          shape.row_stride,
          shape.box_columns,
          shape.box_rows};
  return "";
}

#endif

template <DType kType>
struct HalfTag {
  static constexpr DType value = kType;
};
template <int kHeadDim>
struct HeadDimTag {
  static constexpr int value = kHeadDim;
};

// Calls fn(HalfTag<type>{}).
template <typename Fn>
std::string DispatchType(DType type, Fn&& fn) {
  return type == DType::kBFloat16 ? fn(HalfTag<DType::kBFloat16>{})
                                  : fn(HalfTag<DType::kFloat16>{});
}

// Calls fn(HalfTag<type>{}, HeadDimTag<head_dim>{}).
template <typename Fn>
std::string DispatchShape(DType type, int head_dim, Fn&& fn) {
  return DispatchType(type, [&](auto half) -> std::string {
    switch (head_dim) {
      case 32:
        return fn(half, HeadDimTag<32>{});
      case 64:
        return fn(half, HeadDimTag<64>{});
      case 96:
        return fn(half, HeadDimTag<96>{});
      case 128:
        return fn(half, HeadDimTag<128>{});
    }
    return "head_dim is " + std::to_string(head_dim) + "; allowed: 32, 64, 96, 128";
  });
}

}  // namespace evaserve
