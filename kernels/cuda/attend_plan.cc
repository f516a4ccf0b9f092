#include "kernels/cuda/attend_plan.h"

#include <algorithm>

namespace evaserve {
namespace {

int NumPages(int num_slots) { return (num_slots + kCudaPageSlots - 1) / kCudaPageSlots; }

int32_t Append(PageList list, int num_slots, std::vector<int32_t>& pages) {
  const auto begin = static_cast<int32_t>(pages.size());
  pages.insert(pages.end(), list.begin(), list.begin() + NumPages(num_slots));
  return begin;
}

void AppendTree(const uint8_t* mask, int num_queries, std::vector<uint32_t>& words) {
  const int per_row = TreeMaskWords(num_queries);
  const size_t begin = words.size();
  words.resize(begin + static_cast<size_t>(num_queries) * per_row);
  for (int row = 0; row < num_queries; ++row) {
    for (int i = 0; i < num_queries; ++i) {
      if (mask[row * num_queries + i] != 0) words[begin + row * per_row + i / 32] |= 1u << i % 32;
    }
  }
}

template <int kSlots>
int NumBlocks(const AttendPlan& plan, const CudaTile& tile, int tile_rows) {
  const CudaSequence& sequence = plan.sequences[tile.sequence];
  const int num_rows = std::min(tile_rows, sequence.num_queries - tile.row_begin);
  return SlotBlockWalk<kSlots>(sequence, tile.row_begin, num_rows).num_blocks();
}

}  // namespace

AttendPlan PlanAttend(std::span<const AttendSequence> sequences, int tile_rows) {
  AttendPlan plan;
  for (const AttendSequence& from : sequences) {
    CudaSequence to;
    to.query_begin = from.query_begin;
    to.num_queries = from.num_queries;
    to.num_summaries = from.slots.num_summaries;
    to.num_window = from.slots.num_window;
    to.summary_pages = Append(from.slots.summary_pages, to.num_summaries, plan.pages);
    to.window_pages = Append(from.slots.window_pages, to.num_window, plan.pages);
    if (from.tree_mask != nullptr) {
      to.tree_mask = static_cast<int32_t>(plan.tree_masks.size());
      AppendTree(from.tree_mask, to.num_queries, plan.tree_masks);
    }
    const auto index = static_cast<int32_t>(plan.sequences.size());
    plan.sequences.push_back(to);
    for (int row = 0; row < to.num_queries; row += tile_rows) plan.tiles.push_back({index, row});
  }
  std::stable_sort(plan.tiles.begin(), plan.tiles.end(), [&](const CudaTile& a, const CudaTile& b) {
    return NumBlocks<kCudaPageSlots>(plan, a, tile_rows) >
           NumBlocks<kCudaPageSlots>(plan, b, tile_rows);
  });
  return plan;
}

std::vector<CudaSplit> PlanSplits(const AttendPlan& plan, int tile_rows,
                                  const SplitOptions& options) {
  int64_t total = 0;
  for (const CudaTile& tile : plan.tiles) {
    total += int64_t{NumBlocks<kCudaSplitSlots>(plan, tile, tile_rows)} * options.num_heads;
  }
  const auto per_split = static_cast<int>(std::max<int64_t>(
      options.min_slots / kCudaSplitSlots, (total + options.num_blocks - 1) / options.num_blocks));
  std::vector<CudaSplit> splits;
  for (size_t t = 0; t < plan.tiles.size(); ++t) {
    const int num_blocks = NumBlocks<kCudaSplitSlots>(plan, plan.tiles[t], tile_rows);
    const int num_splits = (num_blocks + per_split - 1) / per_split;
    const auto first = static_cast<int32_t>(splits.size());
    for (int i = 0; i < num_splits; ++i) {
      splits.push_back({static_cast<int32_t>(t), i * num_blocks / num_splits,
                        (i + 1) * num_blocks / num_splits, i, num_splits, first});
    }
  }
  return splits;
}

}  // namespace evaserve
