#pragma once

// Starting kernels, in the same words on a device and in the emulator. A .cu file of this folder is
// compiled by nvcc for devices, and as plain C++ for the emulator.

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

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
  constexpr int kGrantedBytes = 48 << 10;  // unless a kernel asks for more
  cudaError_t error = cudaSuccess;
  if (shape.shared_bytes > kGrantedBytes) {
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 shape.shared_bytes);
  }
  if (error == cudaSuccess && shape.num_blocks > 0) {
    kernel<<<static_cast<unsigned>(shape.num_blocks), shape.block_size, shape.shared_bytes,
             stream>>>(args);
    error = cudaGetLastError();
  }
  return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

// How many of the kernel's blocks a multiprocessor runs at once; 1 if the device does not say.
template <typename Args>
int BlocksPerMultiprocessor(void (*kernel)(Args), int block_size, int shared_bytes) {
  int num_blocks = 0;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&num_blocks, kernel, block_size, shared_bytes);
  cudaGetLastError();
  return num_blocks > 0 ? num_blocks : 1;
}

// The driver's function, which there is no library for that a program without a device could load.
inline decltype(&cuTensorMapEncodeTiled) FindTensorMapEncoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault,
                                   &found);
  return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
}

inline std::string MakeTensorMap(const TensorMapShape& shape, ptx::TensorMap* map) {
  static const auto encode = FindTensorMapEncoder();
  if (encode == nullptr) return "the driver has no cuTensorMapEncodeTiled";
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(shape.num_columns),
                              static_cast<cuuint64_t>(shape.num_rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(shape.row_stride) * 2};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(shape.box_columns),
                            static_cast<cuuint32_t>(shape.box_rows)};
  const cuuint32_t steps[] = {1, 1};
  // Bits are copied, so the type of 16 bits does not matter.
  const CUresult result =
      encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, const_cast<void*>(shape.data), sizes, strides,
             box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             shape.box_columns == 64 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? "" : "cuTensorMapEncodeTiled: " + std::to_string(result);
}

#else

struct EmulatedStream {
  using Work = std::vector<std::function<std::string()>>;

  // Does it, or notes it for later. A piece of work says what went wrong, or nothing.
  std::string Do(std::function<std::string()> piece) {
    if (recording == nullptr) return piece();
    recording->push_back(std::move(piece));
    return "";
  }

  uint64_t schedule = 1;      // seed of the next launch
  Work* recording = nullptr;  // not null while work is noted
};
using GpuStream = EmulatedStream*;

template <typename Args>
std::string LaunchKernel(void (*kernel)(Args), const LaunchShape& shape, const Args& args,
                         GpuStream stream) {
  return stream->Do([=] {
    const absl::Status status =
        emulator::Launch({static_cast<int>(shape.num_blocks), shape.block_size,
                          static_cast<size_t>(shape.shared_bytes), ++stream->schedule},
                         [&] { kernel(args); });
    return std::string(status.message());
  });
}

template <typename Args>
int BlocksPerMultiprocessor(void (*)(Args), int, int) {
  return 2;
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
struct TypeTag {
  static constexpr DType value = kType;
};
template <int kHeadDim>
struct HeadDimTag {
  static constexpr int value = kHeadDim;
};

// Calls fn(TypeTag<type>{}); for a kernel of 16-bit types alone.
template <typename Fn>
std::string DispatchHalfType(DType type, Fn&& fn) {
  switch (type) {
    case DType::kBFloat16:
      return fn(TypeTag<DType::kBFloat16>{});
    case DType::kFloat16:
      return fn(TypeTag<DType::kFloat16>{});
    default:
      return "type is " + std::string(Name(type)) + "; allowed: bfloat16, float16";
  }
}

// The same for every type.
template <typename Fn>
std::string DispatchType(DType type, Fn&& fn) {
  return type == DType::kFloat32 ? fn(TypeTag<DType::kFloat32>{}) : DispatchHalfType(type, fn);
}

// Calls fn(HeadDimTag<head_dim>{}).
template <typename Fn>
std::string DispatchHeadDim(int head_dim, Fn&& fn) {
  switch (head_dim) {
    case 32:
      return fn(HeadDimTag<32>{});
    case 64:
      return fn(HeadDimTag<64>{});
    case 96:
      return fn(HeadDimTag<96>{});
    case 128:
      return fn(HeadDimTag<128>{});
  }
  return "head_dim is " + std::to_string(head_dim) + "; allowed: 32, 64, 96, 128";
}

// Calls fn(HeadDimTag<n>{}) for the least n that head_dim fits in; for kernels that fill the rest
// with zeros.
template <typename Fn>
std::string DispatchHeadRoom(int head_dim, Fn&& fn) {
  if (head_dim % 8 != 0 || head_dim < 8 || head_dim > 128) {
    return "head_dim is " + std::to_string(head_dim) + "; allowed: multiples of 8 in [8, 128]";
  }
  if (head_dim <= 32) return fn(HeadDimTag<32>{});
  return head_dim <= 64 ? fn(HeadDimTag<64>{}) : fn(HeadDimTag<128>{});
}

// Calls fn(TypeTag<type>{}, HeadDimTag<head_dim>{}); for a kernel of 16-bit types alone.
template <typename Fn>
std::string DispatchHalfShape(DType type, int head_dim, Fn&& fn) {
  return DispatchHalfType(type, [&](auto tag) {
    return DispatchHeadDim(head_dim, [&](auto dim) { return fn(tag, dim); });
  });
}

// The same for every type.
template <typename Fn>
std::string DispatchShape(DType type, int head_dim, Fn&& fn) {
  return DispatchType(type, [&](auto tag) {
    return DispatchHeadDim(head_dim, [&](auto dim) { return fn(tag, dim); });
  });
}

}  // namespace evaserve
