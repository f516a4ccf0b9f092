#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "kernels/dtype.h"
#include "kernels/worker_pool.h"

namespace evaserve {

// Consecutive queries that see the same keys. No two items may share a query: workers would write
// its result at once.
struct ListAttendItem {
  int query_begin = 0;  // row of the first in q and out
  int num_queries = 0;
  std::span<const int32_t> keys;  // rows of k and v, at least 1
};

// Softmax attention of queries over lists of rows, one softmax per query and head. Hypotheses of a
// beam search share what they have in common: a list names rows wherever they lie, in any order,
// and several lists may name the same row.
struct ListAttendParams {
  std::span<const ListAttendItem> items;
  int num_heads = 0;
  int head_dim = 0;   // a multiple of 4 in [4, 128]
  float scale = 0.f;  // multiplies q . k, usually 1 / sqrt(head_dim)
  // Type of the operands of both matrix products; with bfloat16 queries, keys, values and weights
  // are rounded to it, and sums are float32.
  DType dtype = DType::kFloat32;
  int num_queries = 0;       // rows of q and out
  const float* q = nullptr;  // [num_queries, num_heads, head_dim], rows q_stride elements apart
  int64_t q_stride = 0;
  int num_keys = 0;          // rows of k and v
  const float* k = nullptr;  // [num_keys, num_heads, head_dim], rows kv_stride elements apart
  const float* v = nullptr;
  int64_t kv_stride = 0;
  float* out = nullptr;  // as q; must not overlap an input
  int64_t out_stride = 0;
};

// InvalidArgument, naming the field and its value, if something above does not hold.
absl::Status Validate(const ListAttendParams& params);

// Plain loops, float64 between loads and stores, one thread: what the operation means.
absl::Status ListAttendReference(const ListAttendParams& params);

// The result of a query does not depend, to the bit, on the other queries, on where its keys lie,
// or on the number of workers.
absl::Status ListAttendCpu(const ListAttendParams& params, WorkerPool& pool);

}  // namespace evaserve
