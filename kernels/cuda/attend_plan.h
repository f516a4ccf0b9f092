#pragma once

#include <span>
#include <vector>

#include "kernels/attend.h"
#include "kernels/cuda/attend_args.h"

namespace evaserve {

// A batch as the attention kernels want it, on the host.
struct AttendPlan {
  std::vector<CudaSequence> sequences;
  std::vector<CudaTile> tiles;  // those that see the most slots first
  std::vector<int32_t> pages;
  std::vector<uint32_t> tree_masks;
};

// Cuts the queries of each sequence into tiles of at most tile_rows. Page lists are of pages of
// kCudaPageSlots slots.
AttendPlan PlanAttend(std::span<const AttendSequence> sequences, int tile_rows);

// Cuts what the tiles see into splits for the narrow kernel, so that the device's blocks are done
// at about the same time: each takes one split of a head after another. Equal plans are cut
// equally.
struct SplitOptions {
  int num_heads = 1;
  int num_blocks = 1;   // that the device runs at once
  int min_slots = 256;  // of a split
};
std::vector<CudaSplit> PlanSplits(const AttendPlan& plan, int tile_rows,
                                  const SplitOptions& options);
// The most splits that a plan of so many tiles is cut into.
int MaxSplits(int num_tiles, const SplitOptions& options);

}  // namespace evaserve
