#pragma once

// Rows of a matrix by their numbers: token embeddings, the rows of which outputs are wanted, and
// new rows of states.

#include "kernels/cuda/fused_args.h"
#include "kernels/cuda/ptx.h"

namespace evaserve {

inline constexpr int kGatherThreads = 128;

struct alignas(16) Bytes16 {
  uint32_t words[4];
};

// A block per row.
EVASERVE_KERNEL(kGatherThreads, 1)
GatherRowsKernel(const EVASERVE_GRID_CONSTANT GatherRowsArgs args) {
  const int64_t row = ptx::BlockIndex(), size = args.row_bytes / 16;
  const auto* const from = reinterpret_cast<const Bytes16*>(static_cast<const char*>(args.from) +
                                                            args.rows[row] * args.row_bytes);
  auto* const to = reinterpret_cast<Bytes16*>(static_cast<char*>(args.to) + row * args.row_bytes);
  for (int64_t i = ptx::ThreadIndex(); i < size; i += kGatherThreads) to[i] = from[i];
}

EVASERVE_KERNEL(kGatherThreads, 1)
ScatterRowsKernel(const EVASERVE_GRID_CONSTANT GatherRowsArgs args) {
  const int64_t row = ptx::BlockIndex(), size = args.row_bytes / 16;
  const auto* const from =
      reinterpret_cast<const Bytes16*>(static_cast<const char*>(args.from) + row * args.row_bytes);
  auto* const to =
      reinterpret_cast<Bytes16*>(static_cast<char*>(args.to) + args.rows[row] * args.row_bytes);
  for (int64_t i = ptx::ThreadIndex(); i < size; i += kGatherThreads) to[i] = from[i];
}

}  // namespace evaserve
