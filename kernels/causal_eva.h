#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "kernels/dtype.h"
#include "kernels/landmarks.h"
#include "kernels/worker_pool.h"

namespace evaserve {

struct CausalEvaShape {
  int num_heads = 0;
  int head_dim = 0;      // a multiple of 4 in [4, 128]
  int window = 0;        // tokens, a multiple of chunk
  int chunk = 0;         // tokens
  bool overlap = false;  // a window sees all of the window before it

  int extension() const { return overlap ? window : 0; }
  int num_keys() const { return extension() + window; }
};

// InvalidArgument, naming the field and its value, if `shape` breaks a rule above.
absl::Status Validate(const CausalEvaShape& shape);

// What one sequence leaves behind for its next tokens, in one layer. Somebody else owns the memory,
// which needs no initial value: what was never written is never read.
struct CausalEvaState {
  float* keys = nullptr;    // [num_heads, num_keys(), head_dim]: the extension, then the window
  float* values = nullptr;  // the same
  float* open_q = nullptr;  // [num_heads, chunk, head_dim]: queries of the chunk that is not full
  float* k_bar = nullptr;   // [num_heads, max_chunks, head_dim]: landmarks of the full chunks
  float* beta = nullptr;    // the same
  int max_chunks = 0;
};

// The next tokens of one sequence.
struct CausalEvaSequence {
  CausalEvaState state;
  int position = 0;     // tokens that it has had
  int token_begin = 0;  // row of the first new one in q, k, v and out
  int num_tokens = 0;
};

// Causal EVA of the paper. With windows and chunks counted from the sequence's begin, the query at
// position t attends with one softmax per head to
//   - the keys of its window, and with overlap of the window before, up to t, with a bias, and
//   - the landmarks of all chunks before its own (landmarks.h), also of its own window: their
//     tokens are seen twice.
// A chunk that t completes is seen from t + 1 on. A token costs the same wherever it is in a
// window.
//
// Source: Zheng et al., "Efficient Attention via Control Variates", 2023 (arXiv 2302.04542), in the
// parallel form of its published language model.
struct CausalEvaParams {
  CausalEvaShape shape;
  std::span<const CausalEvaSequence> sequences;
  float scale = 0.f;
  DType dtype = DType::kFloat32;  // as in WindowAttendParams
  const float* q = nullptr;       // [tokens, num_heads, head_dim], tokens `stride` elements apart
  const float* k = nullptr;
  const float* v = nullptr;
  int64_t stride = 0;
  AdaptiveMap map_q;
  AdaptiveMap map_k;
  float mu_scale = 1.f;
  // [window, num_keys()] for all heads: of the query at its place in the window and the key at its
  // place behind the begin of the extension. Null means none.
  const float* bias = nullptr;
  float* out = nullptr;  // as q; must not overlap an input
  int64_t out_stride = 0;
  float* lse = nullptr;  // [tokens, num_heads]: natural log of the normaliser; may be null
};

// InvalidArgument, naming the field and its value, if something above does not hold.
absl::Status Validate(const CausalEvaParams& params);

// Plain loops over whole sequences, float64 between loads and stores, one thread: what the
// operation means. Reads and writes no state. InvalidArgument unless every position is 0.
absl::Status CausalEvaReference(const CausalEvaParams& params);

// Also brings the states forward. A token's result does not depend, to the bit, on later tokens, on
// how the sequence was cut into calls, on the other sequences, or on the number of workers, as long
// as the sequence's numbers are finite: later tokens of its window are multiplied by zero.
absl::Status CausalEvaCpu(const CausalEvaParams& params, WorkerPool& pool);

}  // namespace evaserve
