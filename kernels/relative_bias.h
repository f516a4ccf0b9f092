#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace evaserve {

// Biases of the logits of the paper's EVA models (window_attend.h), from the tables of a
// checkpoint. All results are dense, [num_heads, queries of a window, keys of a window with its
// margin].
//
// `use_rpe` on sequences needs no function: its table is dense already.

// A dense bias grows with the fourth power of a map's window: this is 1 GiB.
inline constexpr int64_t kMaxBiasNumbers = int64_t{1} << 28;

// T5's buckets of distances: exact near zero, logarithmic further away.
struct T5Buckets {
  int num_buckets = 0;
  int max_distance = 0;
  bool is_causal = false;  // keys after the query share bucket 0
};

// As the published code chooses them.
T5Buckets T5BucketsFor(int window, int extension, bool is_causal);

// The bucket of relative = key - query, in float32 as PyTorch computes it. Beyond the exact ones
// there may be none, where max_distance is not beyond them: then it is outside of [0, num_buckets).
int T5Bucket(int relative, const T5Buckets& buckets);

// `use_t5_rpe`: scale times the embedding [num_buckets, num_heads] of each pair's bucket. Pairs are
// of indices inside the window and inside the window with its margin, row by row in a map, so a
// margin shifts them; models are trained so.
// Errors: InvalidArgument, naming its size, if the embedding is of another shape or the bias has
// more than kMaxBiasNumbers; naming max_distance, if a pair has no bucket.
absl::StatusOr<std::vector<float>> T5Bias(std::span<const float> embedding, int num_heads,
                                          float scale, const T5Buckets& buckets, int num_queries,
                                          int num_keys);

// `use_rpe` on maps: for query (a, b) and key (c, d) the entry ra * (2 extension + window) + rb of
// the table [entries, num_heads], with ra = a - c + extension + window - 1 and rb likewise. Since
// rb takes more values than that, different pairs share entries; models are trained so. Errors:
// InvalidArgument, naming its size, if the table is of another shape or the bias has more than
// kMaxBiasNumbers.
absl::StatusOr<std::vector<float>> MapBias(std::span<const float> table, int num_heads, int window,
                                           int extension);

}  // namespace evaserve
