#pragma once

// One wrapper per instruction that the kernels use, and nothing else may touch the machine: on a
// device each is inline PTX (ptx_device.h), on the host a model of it (emulator/ptx_host.h), and so
// the kernels run in tests without a device. Blocks and grids are one-dimensional.
//
// Source of names and semantics: NVIDIA, "Parallel Thread Execution ISA".

#include <cstdint>

#include "kernels/cuda/half.h"

namespace evaserve::ptx {

// A byte address in the block's shared memory.
using SharedAddress = uint32_t;

// What a wgmma reads from shared memory: address, strides and swizzle, see MatrixDescriptor().
using Descriptor = uint64_t;

}  // namespace evaserve::ptx

#if defined(__CUDACC__)
#include "kernels/cuda/ptx_device.h"
#define EVASERVE_DEVICE __device__ __forceinline__
#define EVASERVE_KERNEL(max_threads, min_blocks) \
  __global__ void __launch_bounds__(max_threads, min_blocks)
#define EVASERVE_GRID_CONSTANT __grid_constant__
#define EVASERVE_UNROLL _Pragma("unroll")
#else
#include "kernels/cuda/emulator/ptx_host.h"
#define EVASERVE_DEVICE inline
#define EVASERVE_KERNEL(max_threads, min_blocks) inline void
#define EVASERVE_GRID_CONSTANT
#define EVASERVE_UNROLL
#endif

namespace evaserve::ptx {

// Bytes in a row of a swizzled block, after which its 16-byte pieces are permuted.
enum class Swizzle : uint32_t { k64Bytes, k128Bytes };

// For a matrix in rows of 64 or 128 bytes, permuted by `swizzle`. Eight rows are a group.
// K-major (rows along the other dimension): group_stride lies between two groups, block_stride is
// not read. MN-major (rows along the summed dimension): group_stride likewise, block_stride between
// two blocks of 32 or 64 elements. Strides in bytes, multiples of 16.
EVASERVE_HOST_DEVICE Descriptor MatrixDescriptor(SharedAddress address, Swizzle swizzle,
                                                 uint32_t block_stride, uint32_t group_stride) {
  const Descriptor layout = swizzle == Swizzle::k128Bytes ? 1 : 2;
  return Descriptor{(address & 0x3ffff) >> 4} | Descriptor{block_stride >> 4} << 16 |
         Descriptor{group_stride >> 4} << 32 | layout << 62;
}

// A descriptor whose address is `bytes` further on.
EVASERVE_HOST_DEVICE Descriptor Advance(Descriptor descriptor, uint32_t bytes) {
  return descriptor + (bytes >> 4);
}

}  // namespace evaserve::ptx
