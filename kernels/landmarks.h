#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "kernels/linear.h"
#include "kernels/regions.h"
#include "kernels/worker_pool.h"

namespace evaserve {

// The learned map of the mean of a chunk, the same for all heads: a linear layer, then LayerNorm
// (kAdaptiveNormEps) unless norm_weight is null.
struct AdaptiveMap {
  const PackedWeight* weight = nullptr;  // float32, [head_dim, head_dim]; null: there is no map
  const float* bias = nullptr;           // [head_dim]
  const float* norm_weight = nullptr;    // [head_dim]
  const float* norm_bias = nullptr;      // [head_dim]
};

// The control variates of EVA, one landmark for each chunk c of each head:
//
//   qbar_c  = map_q(mean_j q_j)      kbar_c = map_k(mean_j k_j)      over all places of the chunk
//   mu_c    = mu_scale (qbar_c + kbar_c), or 0 without a map_q
//   beta_c  = sum_j softmax_j(scale (mu_c . k_j - |k_j|^2 / 2)) v_j  over the tokens of the chunk
//
// A chunk without tokens has beta 0. The published code's adaptive_proj: `default` and `no-ln` are
// mu_scale 0.5, with and without the norm; `none` has no map_q; the causal `qk` and `no-ln` have
// mu_scale 1.
//
// Source: Zheng et al., "Efficient Attention via Control Variates", 2023 (arXiv 2302.04542), in the
// form of its published code in eval mode.
struct LandmarksParams {
  std::span<const RegionItem> items;
  int num_heads = 0;
  int head_dim = 0;  // a multiple of 4 in [4, 128]
  float scale = 0.f;
  const float* q = nullptr;  // [tokens, num_heads, head_dim], tokens `stride` elements apart
  const float* k = nullptr;
  const float* v = nullptr;
  int64_t stride = 0;
  AdaptiveMap map_q;
  AdaptiveMap map_k;
  float mu_scale = 0.5f;
  // For each item, from landmark_begin * num_heads * head_dim on: [num_heads, num_chunks,
  // head_dim].
  float* k_bar = nullptr;
  float* beta = nullptr;
};

// InvalidArgument, naming the field and its value, if something above does not hold.
absl::Status Validate(const LandmarksParams& params);

// Plain loops, float64, one thread: what the operation means.
absl::Status LandmarksReference(const LandmarksParams& params);

// Everything in float32. A landmark does not depend, to the bit, on the other items or on the
// number of workers.
absl::Status LandmarksCpu(const LandmarksParams& params, WorkerPool& pool);

}  // namespace evaserve
