#include <algorithm>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/parallel.h"
#include "kernels/store_slots.h"

namespace evaserve {
namespace {

static_assert(kMaxHeadDim == kMaxTileHeadDim);

// The tokens of one sequence that lie in one page.
struct Piece {
  const StoreSequence* sequence = nullptr;
  int first = 0;  // token of the sequence
  int count = 0;
};

int NumPages(const StoreSequence& sequence) {
  if (sequence.num_tokens == 0) return 0;
  const int last = sequence.slot_begin + sequence.num_tokens - 1;
  return last / kPageSlots - sequence.slot_begin / kPageSlots + 1;
}

Piece FindPiece(std::span<const StoreSequence> sequences, int index) {
  const StoreSequence* sequence = sequences.data();
  for (; index >= NumPages(*sequence); ++sequence) index -= NumPages(*sequence);
  const int page_begin = (sequence->slot_begin / kPageSlots + index) * kPageSlots;
  const int begin = std::max(page_begin, sequence->slot_begin);
  const int end = std::min(page_begin + kPageSlots, sequence->slot_begin + sequence->num_tokens);
  return {sequence, begin - sequence->slot_begin, end - begin};
}

void StorePiece(const StoreSlotsParams& p, const Piece& piece, const CpuKernels& kernels) {
  const PageLayout& layout = p.pages.layout;
  const StoreSequence& sequence = *piece.sequence;
  const float* cos[kPageSlots];
  const float* sin[kPageSlots];
  for (int i = 0; i < piece.count; ++i) {
    const int token = piece.first + i;
    const int64_t offset = sequence.position_offsets ? sequence.position_offsets[token] : token;
    const int64_t row = (sequence.position_begin + offset) * (layout.head_dim / 2);
    cos[i] = p.rope.cos + row;
    sin[i] = p.rope.sin + row;
  }

  const int slot = sequence.slot_begin + piece.first;
  const int page = sequence.window_pages[slot / kPageSlots];
  const int64_t begin = (sequence.token_begin + piece.first) * p.token_stride;
  for (int head = 0; head < layout.num_heads; ++head) {
    const int64_t element = begin + int64_t{head} * layout.head_dim;
    StoreRows rows;
    rows.q = p.q + element;
    rows.k = p.k + element;
    rows.v = p.v + element;
    rows.stride = p.token_stride;
    rows.cos = cos;
    rows.sin = sin;
    rows.num_tokens = piece.count;
    rows.slot_begin = slot % kPageSlots;
    rows.keys = p.pages.keys(page, head);
    rows.values = p.pages.values(page, head);
    rows.head_dim = layout.head_dim;
    rows.padded_head_dim = layout.padded_head_dim();
    rows.is_bfloat16 = layout.dtype == DType::kBFloat16;
    kernels.store(rows);
  }
}

}  // namespace

absl::Status StoreSlotsCpu(const StoreSlotsParams& params, WorkerPool& pool) {
  if (absl::Status status = Validate(params); !status.ok()) return status;
  const CpuKernels& kernels = GetCpuKernels();
  const PageLayout& layout = params.pages.layout;
  int num_pieces = 0;
  int64_t tokens = 0;
  for (const StoreSequence& sequence : params.sequences) {
    num_pieces += NumPages(sequence);
    tokens += sequence.num_tokens;
  }
  if (num_pieces == 0) return absl::OkStatus();

  const int64_t work = tokens * layout.num_heads * layout.head_dim * 16 / num_pieces;
  ParallelFor(pool, num_pieces, work, [&](int begin, int end, int) {
    for (int i = begin; i < end; ++i) {
      StorePiece(params, FindPiece(params.sequences, i), kernels);
    }
  });
  return absl::OkStatus();
}

}  // namespace evaserve
