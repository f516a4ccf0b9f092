#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/half.h"

namespace evaserve {

// Slots in a page on the device: the keys that one tile of the wide kernel takes.
inline constexpr int kCudaPageSlots = 128;

// How the keys or the values of one head in one page lie in device memory: as the tensor cores want
// them in shared memory, so that loading a page is a plain copy. Blocks of kBlockColumns dimensions
// follow each other; in a block a slot is a row of kRowBytes, whose 16-byte pieces are permuted by
// the row's number (the swizzle of that many bytes).
//
// A page of one layer is [num_heads][keys, values] images.
template <int kHeadDim>
struct PageImage {
  static_assert(kHeadDim % 32 == 0 && kHeadDim <= 128);
  static constexpr int kBlockColumns = kHeadDim % 64 == 0 ? 64 : 32;
  static constexpr int kRowBytes = kBlockColumns * 2;
  static constexpr int kBlockBytes = kCudaPageSlots * kRowBytes;
  static constexpr int kNumBlocks = kHeadDim / kBlockColumns;
  static constexpr int kBytes = kNumBlocks * kBlockBytes;

  // Of a block that begins at a multiple of 1024 bytes, the byte at `row_offset` bytes of a row.
  static constexpr EVASERVE_HOST_DEVICE uint32_t Swizzle(int row, int row_offset) {
    const uint32_t at = row * kRowBytes + row_offset;
    return at ^ (at >> 7 & (kRowBytes / 16 - 1)) << 4;
  }
  // Byte offset of a slot's dimension in the image.
  static constexpr EVASERVE_HOST_DEVICE uint32_t Offset(int slot, int dim) {
    return dim / kBlockColumns * kBlockBytes + Swizzle(slot, dim % kBlockColumns * 2);
  }
};

// The same for float32 pages, which no tensor core reads: a slot is a row of kHeadDim floats.
template <int kHeadDim>
struct FloatPageImage {
  static constexpr int kRowBytes = kHeadDim * 4;
  static constexpr int kBytes = kCudaPageSlots * kRowBytes;

  static constexpr EVASERVE_HOST_DEVICE uint32_t Offset(int slot, int dim) {
    return slot * kRowBytes + dim * 4;
  }
};

template <DType kType, int kHeadDim>
using PageImageOf =
    std::conditional_t<kType == DType::kFloat32, FloatPageImage<kHeadDim>, PageImage<kHeadDim>>;

// Those that there are kernels for.
constexpr bool IsCudaHeadDim(int head_dim) {
  return head_dim == 32 || head_dim == 64 || head_dim == 96 || head_dim == 128;
}

// Pages that hold so many slots.
constexpr EVASERVE_HOST_DEVICE int CudaPagesOf(int num_slots) {
  return (num_slots + kCudaPageSlots - 1) / kCudaPageSlots;
}

constexpr int64_t CudaImageBytes(int head_dim, int element_bytes) {
  return int64_t{kCudaPageSlots} * head_dim * element_bytes;
}
constexpr int64_t CudaPageBytes(int num_heads, int head_dim, int element_bytes) {
  return 2 * num_heads * CudaImageBytes(head_dim, element_bytes);
}

}  // namespace evaserve
