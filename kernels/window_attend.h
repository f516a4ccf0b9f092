#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "kernels/dtype.h"
#include "kernels/regions.h"
#include "kernels/worker_pool.h"

namespace evaserve {

// Non-causal EVA attention: each query of a window, with one softmax per head, over
//   - the keys of the window and its margin, with a bias for each pair of places, and
//   - all landmarks of its item (landmarks.h), without one.
// Places outside of the tokens have no weight, and no result.
//
// Source: Zheng et al., "Efficient Attention via Control Variates", 2023 (arXiv 2302.04542), in the
// form of its published code. A landmark weighs as much as one token.
struct WindowAttendParams {
  std::span<const RegionItem> items;
  int num_heads = 0;
  int head_dim = 0;   // a multiple of 4 in [4, 128]
  float scale = 0.f;  // multiplies q . k, usually 1 / sqrt(head_dim)
  // Type of the operands of both matrix products; with bfloat16 queries, keys, values, landmarks
  // and weights are rounded to it, and sums are float32.
  DType dtype = DType::kFloat32;
  const float* q = nullptr;  // [tokens, num_heads, head_dim], tokens `stride` elements apart
  const float* k = nullptr;
  const float* v = nullptr;
  int64_t stride = 0;
  const float* k_bar = nullptr;  // as LandmarksCpu leaves them
  const float* beta = nullptr;
  // [num_heads, window_queries, window_keys], added to the logits; null means none. All items have
  // the same windows, then.
  const float* bias = nullptr;
  float* out = nullptr;  // as q; must not overlap an input
  int64_t out_stride = 0;
  float* lse = nullptr;  // [tokens, num_heads]: natural log of the normaliser; may be null
};

// InvalidArgument, naming the field and its value, if something above does not hold.
absl::Status Validate(const WindowAttendParams& params);

// Plain loops, float64 between loads and stores, one thread: what the operation means.
absl::Status WindowAttendReference(const WindowAttendParams& params);

// The result of a query does not depend, to the bit, on the other items or on the number of
// workers.
absl::Status WindowAttendCpu(const WindowAttendParams& params, WorkerPool& pool);

}  // namespace evaserve
