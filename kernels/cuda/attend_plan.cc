#include "kernels/cuda/attend_plan.h"

#include <algorithm>
#include <limits>

namespace evaserve {
namespace {

// What beginning and ending a split costs, in blocks of slots. An estimate.
constexpr int kSplitCost = 4;

int CeilDiv(int a, int b) { return (a + b - 1) / b; }

int32_t Append(PageList list, int num_slots, std::vector<int32_t>& pages) {
  const auto begin = static_cast<int32_t>(pages.size());
  pages.insert(pages.end(), list.begin(), list.begin() + CudaPagesOf(num_slots));
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

// How many blocks of slots a split should have at most, if tile t has num_blocks[t]: all equal cuts
// of the longest tile are tried, and the time of each is estimated.
int BlocksPerSplit(std::span<const int> num_blocks, const SplitOptions& options) {
  int longest = 1;
  for (const int n : num_blocks) longest = std::max(longest, n);
  const int least = options.min_slots / kCudaSplitSlots;
  const int most_splits = MaxSplits(static_cast<int>(num_blocks.size()), options);
  int best = longest;
  int64_t best_time = std::numeric_limits<int64_t>::max();
  for (int cuts = 1; cuts == 1 || longest / cuts >= least; ++cuts) {
    const int per_split = CeilDiv(longest, cuts);
    int num_splits = 0;
    for (const int n : num_blocks) num_splits += CeilDiv(n, per_split);
    if (num_splits > most_splits) break;
    const int waves = CeilDiv(num_splits * options.num_heads, options.num_blocks);
    const int64_t time = int64_t{waves} * (per_split + kSplitCost);
    if (time >= best_time) continue;
    best = per_split;
    best_time = time;
  }
  return best;
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

int MaxSplits(int num_tiles, const SplitOptions& options) {
  // Some rounds' worth, or nine equal sequences of 32 heads would leave half of 264 blocks idle.
  constexpr int kRounds = 4;
  return num_tiles + kRounds * CeilDiv(options.num_blocks, options.num_heads);
}

std::vector<CudaSplit> PlanSplits(const AttendPlan& plan, int tile_rows,
                                  const SplitOptions& options) {
  std::vector<int> num_blocks;
  for (const CudaTile& tile : plan.tiles) {
    num_blocks.push_back(NumBlocks<kCudaSplitSlots>(plan, tile, tile_rows));
  }
  const int per_split = BlocksPerSplit(num_blocks, options);
  std::vector<CudaSplit> splits;
  for (size_t t = 0; t < plan.tiles.size(); ++t) {
    const int num_splits = CeilDiv(num_blocks[t], per_split);
    const auto first = static_cast<int32_t>(splits.size());
    for (int i = 0; i < num_splits; ++i) {
      splits.push_back({static_cast<int32_t>(t), i * num_blocks[t] / num_splits,
                        (i + 1) * num_blocks[t] / num_splits, i, num_splits, first});
    }
  }
  return splits;
}

}  // namespace evaserve
