#pragma once

// What the attention kernels get: plain structs, on the host and on the device.

#include <cstdint>

#include "kernels/cuda/page_image.h"

namespace evaserve {

// A row of a tree mask: bit i % 32 of word i / 32 is set if own slot i is seen.
EVASERVE_HOST_DEVICE int TreeMaskWords(int num_queries) { return (num_queries + 31) / 32; }

// One sequence of the batch, see AttendSequence in kernels/attend.h. Lists of pages and tree masks
// are named by where they begin in the batch's arrays.
struct CudaSequence {
  int32_t query_begin = 0;  // row of its first query in q and out
  int32_t num_queries = 0;
  int32_t num_summaries = 0;
  int32_t num_window = 0;  // its own new slots included
  int32_t summary_pages = 0;
  int32_t window_pages = 0;
  int32_t tree_mask = -1;  // [num_queries, TreeMaskWords(num_queries)]; -1: causal

  EVASERVE_HOST_DEVICE int own_begin() const { return num_window - num_queries; }
};

// Some rows of one sequence, for all heads.
struct CudaTile {
  int32_t sequence = 0;
  int32_t row_begin = 0;  // of the sequence's queries
};

struct CudaAttendArgs {
  const CudaSequence* sequences = nullptr;
  const CudaTile* tiles = nullptr;
  const int32_t* pages = nullptr;  // the lists of all sequences
  const uint32_t* tree_masks = nullptr;
  int num_tiles = 0;
  int num_heads = 0;
  const char* pool = nullptr;  // pages of the layer, see page_image.h
  int64_t page_bytes = 0;
  const void* q = nullptr;  // [num_tokens, num_heads, head_dim], rotated
  int64_t q_stride = 0;     // elements between two tokens, a multiple of 8
  void* out = nullptr;      // as q
  int64_t out_stride = 0;
  float* lse = nullptr;    // [num_tokens, num_heads], natural log of the normaliser; may be null
  float scale_log2 = 0.f;  // scale * log2(e)
};

// For the narrow kernel, part of what a tile sees: a range of the blocks of its SlotBlockWalk of
// kCudaSplitSlots.
inline constexpr int kCudaSplitSlots = 16;
struct CudaSplit {
  int32_t tile = 0;
  int32_t block_begin = 0;
  int32_t block_end = 0;
  int32_t index = 0;          // in the tile
  int32_t num_splits = 0;     // of the tile
  int32_t first_partial = 0;  // where the results of its splits lie
};

struct NarrowAttendArgs {
  CudaAttendArgs attend;  // tiles of 16 queries; num_tiles is not read
  const CudaSplit* splits = nullptr;
  const int32_t* num_splits = nullptr;
  // For partial results, [num_splits][num_heads] of them: see NarrowPartialFloats().
  float* partials = nullptr;
  int32_t* num_arrived = nullptr;  // [num_tiles, num_heads], 0 before and after
};

// Consecutive slots in one page, as some rows of queries see them.
struct CudaSlotBlock {
  int page = 0;     // index in CudaAttendArgs::pages
  int begin = 0;    // first slot, in the page
  int written = 0;  // slots that hold something
  int visible = 0;  // slots that row 0 sees, may be negative or more than there are; under the
  int slope = 0;    // causal mask row i sees i more: slope 1
  int own = 0;      // with a tree: the slot, in the block or not, where own slots begin
};

// The blocks of kSlots slots that rows [row_begin, row_begin + num_rows) of a sequence see. Those
// that some row does not see whole come first: the mask costs nothing in the blocks after them.
template <int kSlots>
class SlotBlockWalk {
 public:
  EVASERVE_HOST_DEVICE SlotBlockWalk(const CudaSequence& sequence, int row_begin, int num_rows)
      : sequence_(sequence), first_slot_(sequence.own_begin() + row_begin) {
    const bool is_tree = sequence.tree_mask >= 0;
    const int seen = is_tree ? sequence.num_window : first_slot_ + num_rows;
    const int seen_by_all = is_tree ? sequence.own_begin() : first_slot_ + 1;
    num_whole_window_ = seen_by_all / kSlots;
    num_window_ = (seen + kSlots - 1) / kSlots;
    num_whole_summaries_ = sequence.num_summaries / kSlots;
    has_partial_summaries_ = sequence.num_summaries % kSlots != 0;
  }

  EVASERVE_HOST_DEVICE int num_masked() const {
    return num_window_ - num_whole_window_ + (has_partial_summaries_ ? 1 : 0);
  }
  EVASERVE_HOST_DEVICE int num_blocks() const {
    return num_window_ + num_whole_summaries_ + (has_partial_summaries_ ? 1 : 0);
  }

  EVASERVE_HOST_DEVICE CudaSlotBlock At(int i) const {
    const int num_partial_window = num_window_ - num_whole_window_;
    if (i < num_partial_window) return Window(num_window_ - 1 - i);
    if (i < num_masked()) return Summaries(num_whole_summaries_);
    i -= num_masked();
    return i < num_whole_window_ ? Window(num_whole_window_ - 1 - i)
                                 : Summaries(i - num_whole_window_);
  }

 private:
  static constexpr int kBlocksPerPage = kCudaPageSlots / kSlots;

  EVASERVE_HOST_DEVICE CudaSlotBlock Window(int block) const {
    CudaSlotBlock result;
    const int begin = block * kSlots, left = sequence_.num_window - begin;
    const bool is_tree = sequence_.tree_mask >= 0;
    result.page = sequence_.window_pages + block / kBlocksPerPage;
    result.begin = block % kBlocksPerPage * kSlots;
    result.written = left < kSlots ? left : kSlots;
    result.visible = is_tree ? left : first_slot_ + 1 - begin;
    result.slope = is_tree ? 0 : 1;
    result.own = is_tree ? sequence_.own_begin() - begin : kCudaPageSlots;
    return result;
  }
  EVASERVE_HOST_DEVICE CudaSlotBlock Summaries(int block) const {
    CudaSlotBlock result;
    const int left = sequence_.num_summaries - block * kSlots;
    result.page = sequence_.summary_pages + block / kBlocksPerPage;
    result.begin = block % kBlocksPerPage * kSlots;
    result.written = left < kSlots ? left : kSlots;
    result.visible = left;
    result.slope = 0;
    result.own = kCudaPageSlots;
    return result;
  }

  const CudaSequence& sequence_;
  int first_slot_;  // the row's own
  int num_whole_window_, num_window_;
  int num_whole_summaries_;
  bool has_partial_summaries_;
};

// The first `count` of 32 bits; count may be anything.
EVASERVE_HOST_DEVICE uint32_t LowBits(int count) {
  return count <= 0 ? 0u : count >= 32 ? ~0u : (1u << count) - 1;
}

// Which of a block's slots [32 * word, 32 * word + 32) row `row` of the tile that begins at
// row_begin sees, a bit each.
EVASERVE_HOST_DEVICE uint32_t VisibleSlots(const CudaAttendArgs& args, const CudaSequence& sequence,
                                           const CudaSlotBlock& block, int row_begin, int row,
                                           int word) {
  const uint32_t visible = LowBits(block.visible + block.slope * row - 32 * word);
  const int own = block.own - 32 * word;  // the bit of the first own slot
  if (own >= 32) return visible;
  const int query = row_begin + row, num_words = TreeMaskWords(sequence.num_queries);
  if (query >= sequence.num_queries) return 0;
  const uint32_t* const tree = args.tree_masks + sequence.tree_mask + query * num_words;
  if (own >= 0) return visible & (tree[0] << own | LowBits(own));
  const int first = -own / 32, shift = -own % 32;
  uint32_t seen = first < num_words ? tree[first] >> shift : 0;
  if (shift != 0 && first + 1 < num_words) seen |= tree[first + 1] << (32 - shift);
  return visible & seen;
}

}  // namespace evaserve
