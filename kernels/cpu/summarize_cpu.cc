#include <algorithm>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/parallel.h"
#include "kernels/summarize.h"

namespace evaserve {
namespace {

SummarizeChunks MakeChunks(const SummarizeParams& p, const SummarizeSequence& sequence, int head) {
  const PageLayout& layout = p.pages.layout;
  SummarizeChunks chunks;
  chunks.keys = p.pages.keys(0, head);
  chunks.page_bytes = layout.page_bytes();
  chunks.key_bytes = layout.key_bytes();
  chunks.window_pages = sequence.window_pages.data();
  chunks.summary_pages = sequence.summary_pages.data();
  chunks.num_chunks = sequence.num_chunks;
  chunks.chunk = p.chunk;
  chunks.summary_begin = sequence.summary_begin;
  chunks.scale = p.scale;
  chunks.mu = p.mu + int64_t{head} * layout.head_dim;
  chunks.phi = p.phi + int64_t{head} * layout.head_dim;
  chunks.head_dim = layout.head_dim;
  chunks.padded_head_dim = layout.padded_head_dim();
  chunks.is_bfloat16 = layout.dtype == DType::kBFloat16;
  return chunks;
}

}  // namespace

absl::Status SummarizeCpu(const SummarizeParams& params, WorkerPool& pool) {
  if (absl::Status status = Validate(params); !status.ok()) return status;
  const CpuKernels& kernels = GetCpuKernels();
  const int num_heads = params.pages.layout.num_heads;
  int64_t tokens = 0;
  for (const SummarizeSequence& sequence : params.sequences) {
    tokens += int64_t{sequence.num_chunks} * params.chunk;
  }

  // A piece is one head of one sequence: two summaries may share a pair of bfloat16 values, so they
  // must not be written by two threads.
  const int num_pieces = static_cast<int>(params.sequences.size()) * num_heads;
  if (num_pieces == 0) return absl::OkStatus();
  const int64_t work = tokens * num_heads * params.pages.layout.head_dim * 8 / num_pieces;
  ParallelFor(pool, num_pieces, work, [&](int begin, int end, int worker) {
    for (int i = begin; i < end; ++i) {
      const SummarizeChunks chunks =
          MakeChunks(params, params.sequences[i / num_heads], i % num_heads);
      kernels.summarize(chunks, pool.Scratch(worker, kernels.summarize_scratch_bytes(chunks)));
    }
  });
  return absl::OkStatus();
}

}  // namespace evaserve
