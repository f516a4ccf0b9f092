#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "kernels/page_layout.h"
#include "kernels/worker_pool.h"

namespace evaserve {

// The new queries of one sequence. Their own keys and values are stored already: they are the last
// num_queries slots of the window.
struct AttendSequence {
  SlotList slots;
  int query_begin = 0;  // row of its first query in q and out
  int num_queries = 0;
  // Which of the sequence's own num_queries slots each query sees, [num_queries, num_queries], 1
  // for seen: the ancestors of a node in a tree of guesses. Null: query i sees own slots 0 .. i.
  const uint8_t* tree_mask = nullptr;
};

// Softmax attention of queries over lists of slots, one softmax per query and head over
//   - every summary of its sequence,
//   - every window slot before the sequence's own new ones, and
//   - those of the own ones that the mask shows.
// A window boundary needs no mask, since a step never crosses one. So prefill, decoding and the
// verification of guesses are this one operation with many, one or a few queries.
//
// Source: EVA in the form of the EvaByte checkpoints; "Efficient Attention via Control Variates"
// (arXiv 2302.04542). A summary weighs as much as one token.
struct AttendParams {
  PageStore pages;
  float scale = 0.f;         // multiplies q . k, usually 1 / sqrt(head_dim)
  const float* q = nullptr;  // [num_tokens, num_heads, head_dim], rotated
  int64_t q_stride = 0;      // elements between two tokens
  float* out = nullptr;      // as q; must not overlap it
  int64_t out_stride = 0;
  float* lse = nullptr;  // [num_tokens, num_heads]: natural log of the normaliser; may be null
  std::span<const AttendSequence> sequences;
};

// InvalidArgument, naming the field, if a page or slot is out of range.
absl::Status Validate(const AttendParams& params);

// Plain loops, float64 between loads and stores, one thread: what the operation means.
absl::Status AttendReference(const AttendParams& params);

// The result of a query does not depend, to the bit, on how many queries or sequences share the
// call or on the number of workers.
absl::Status AttendCpu(const AttendParams& params, WorkerPool& pool);

}  // namespace evaserve
