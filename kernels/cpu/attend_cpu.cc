#include <algorithm>

#include "kernels/attend.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/parallel.h"

namespace evaserve {
namespace {

static_assert(kPageSlots == kTileColumns, "a page is one panel of the register tile");

int NumRowBlocks(const AttendSequence& sequence, int rows) {
  return (sequence.num_queries + rows - 1) / rows;
}

// Walks the pieces of work in order: the row blocks of head 0 of the first sequence, of head 1, ...
class Cursor {
 public:
  Cursor(const AttendParams& params, int rows_per_block, int64_t index)
      : params_(params), rows_(rows_per_block) {
    while (index >= PiecesOf(sequence_)) index -= PiecesOf(sequence_++);
    head_ = static_cast<int>(index / NumRowBlocks(sequence(), rows_));
    block_ = static_cast<int>(index % NumRowBlocks(sequence(), rows_));
  }

  const AttendSequence& sequence() const { return params_.sequences[sequence_]; }
  int head() const { return head_; }
  int row_begin() const { return block_ * rows_; }

  void Next() {
    if (++block_ < NumRowBlocks(sequence(), rows_)) return;
    block_ = 0;
    if (++head_ < params_.pages.layout.num_heads) return;
    head_ = 0;
    ++sequence_;
    while (sequence_ < params_.sequences.size() && sequence().num_queries == 0) ++sequence_;
  }

 private:
  int64_t PiecesOf(size_t sequence) const {
    return int64_t{NumRowBlocks(params_.sequences[sequence], rows_)} *
           params_.pages.layout.num_heads;
  }

  const AttendParams& params_;
  const int rows_;
  size_t sequence_ = 0;
  int head_ = 0;
  int block_ = 0;
};

AttendRows MakeRows(const AttendParams& p, const Cursor& cursor, int rows_per_block) {
  const PageLayout& layout = p.pages.layout;
  const AttendSequence& sequence = cursor.sequence();
  const int64_t token = sequence.query_begin + cursor.row_begin();
  const int64_t column = int64_t{cursor.head()} * layout.head_dim;

  AttendRows rows;
  rows.q = p.q + token * p.q_stride + column;
  rows.q_stride = p.q_stride;
  rows.out = p.out + token * p.out_stride + column;
  rows.out_stride = p.out_stride;
  rows.lse = p.lse == nullptr ? nullptr : p.lse + token * layout.num_heads + cursor.head();
  rows.lse_stride = layout.num_heads;
  rows.num_rows = std::min(rows_per_block, sequence.num_queries - cursor.row_begin());
  rows.scale = p.scale;
  rows.is_bfloat16 = layout.dtype == DType::kBFloat16;
  rows.head_dim = layout.head_dim;
  rows.padded_head_dim = layout.padded_head_dim();
  rows.keys = p.pages.keys(0, cursor.head());
  rows.page_bytes = layout.page_bytes();
  rows.head_bytes = layout.head_bytes();
  rows.key_bytes = layout.key_bytes();
  rows.summary_pages = sequence.slots.summary_pages.data();
  rows.num_summaries = sequence.slots.num_summaries;
  rows.window_pages = sequence.slots.window_pages.data();
  rows.own_begin = sequence.slots.num_window - sequence.num_queries;
  rows.num_own = sequence.num_queries;
  rows.num_visible = rows.own_begin + cursor.row_begin() + 1;
  if (sequence.tree_mask != nullptr) {
    rows.tree_mask = sequence.tree_mask + int64_t{cursor.row_begin()} * sequence.num_queries;
  }
  return rows;
}

// Multiply-adds of the whole call, and how many pieces it has.
struct Work {
  int64_t multiply_adds = 0;
  int64_t num_pieces = 0;
};

Work Measure(const AttendParams& p, int rows_per_block) {
  const PageLayout& layout = p.pages.layout;
  Work work;
  for (const AttendSequence& sequence : p.sequences) {
    const int64_t slots = sequence.slots.num_summaries + sequence.slots.num_window;
    // A lone row is bound by reading the slots, not by arithmetic.
    const int64_t rows = std::max(sequence.num_queries, std::min(sequence.num_queries * 4, 4));
    work.multiply_adds += rows * slots * layout.num_heads * layout.head_dim * 2;
    work.num_pieces += int64_t{NumRowBlocks(sequence, rows_per_block)} * layout.num_heads;
  }
  return work;
}

}  // namespace

absl::Status AttendCpu(const AttendParams& params, WorkerPool& pool) {
  if (absl::Status status = Validate(params); !status.ok()) return status;
  const CpuKernels& kernels = GetCpuKernels();
  const Work work = Measure(params, kernels.attend_rows);
  if (work.num_pieces == 0) return absl::OkStatus();

  const int num_pieces = static_cast<int>(work.num_pieces);
  ParallelFor(pool, num_pieces, work.multiply_adds / num_pieces,
              [&](int begin, int end, int worker) {
                Cursor cursor(params, kernels.attend_rows, begin);
                for (int i = begin; i < end; ++i, cursor.Next()) {
                  const AttendRows rows = MakeRows(params, cursor, kernels.attend_rows);
                  kernels.attend(rows, pool.Scratch(worker, kernels.attend_scratch_bytes(rows)));
                }
              });
  return absl::OkStatus();
}

}  // namespace evaserve
