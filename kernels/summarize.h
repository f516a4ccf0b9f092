#pragma once

#include <span>

#include "absl/status/status.h"
#include "kernels/page_layout.h"
#include "kernels/worker_pool.h"

namespace evaserve {

// Folds chunks of a window into summary slots, the control variates of EVA.
//
// For the keys k_j and values v_j of one chunk and the head's vectors mu and phi:
//
//   a_j = softmax_j(mu . k_j)                             summary key   = sum_j a_j k_j
//   b_j = softmax_j(scale * (phi . k_j - |k_j|^2 / 2))    summary value = sum_j b_j v_j
//
// Keys are rotated already, and a summary is never rotated again.
//
// Source: Zheng et al., "Efficient Attention via Control Variates", 2023 (arXiv 2302.04542), in the
// form of the EvaByte checkpoints.
struct SummarizeSequence {
  PageList window_pages;
  int num_chunks = 0;  // chunk i is window slots [i * chunk, (i + 1) * chunk)
  PageList summary_pages;
  int summary_begin = 0;  // summary slot of chunk 0
};

struct SummarizeParams {
  PageStore pages;
  int chunk = 0;               // tokens in a chunk
  float scale = 0.f;           // usually 1 / sqrt(head_dim)
  const float* mu = nullptr;   // [num_heads, head_dim]
  const float* phi = nullptr;  // the same
  std::span<const SummarizeSequence> sequences;
};

// InvalidArgument, naming the field, if a page or slot is out of range.
absl::Status Validate(const SummarizeParams& params);

// Plain loops, float64 between loads and stores, one thread: what the operation means.
absl::Status SummarizeReference(const SummarizeParams& params);

absl::Status SummarizeCpu(const SummarizeParams& params, WorkerPool& pool);

}  // namespace evaserve
