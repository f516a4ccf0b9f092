#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace evaserve {

inline constexpr int kMaxEvaHeadDim = 128;

// What non-causal EVA cuts a sequence or a map of tokens into. Tokens are numbered row by row.
struct RegionShape {
  int height = 1;         // rows of the map; 1 for a sequence
  int width = 0;          // tokens in a row
  int window = 0;         // tokens along a side of a window
  int num_landmarks = 0;  // chunks asked for; Regions says how many there are
  bool overlap = false;   // windows and chunks see a margin around them
  bool is_2d = false;     // windows and chunks are squares of a map

  // Tokens of the margin on each side.
  int extension() const { return !overlap ? 0 : window / 2 > 1 ? window / 2 : 1; }
  int num_tokens() const { return height * width; }
  // A sequence is padded at its end to whole windows; a map has whole windows.
  int num_padded() const { return is_2d ? num_tokens() : (width + window - 1) / window * window; }
  // Tokens along a side of a chunk, without the margin.
  int chunk() const;
};

// InvalidArgument, naming the field and its value, unless the shape has windows and chunks: at
// least as many (padded) tokens as landmarks; maps of whole windows; and without overlap whole
// chunks. With overlap a remainder at the end has no chunk of its own.
absl::Status Validate(const RegionShape& shape);

// Which tokens make up each window and each chunk, as tables of token indices. -1 is a place
// outside of the tokens, in the margin of an edge or in the padding: never computed, zero in the
// mean of a chunk (which divides by all places), without weight in attention.
//
// The same tables serve every sequence and map of a shape; nothing in a kernel knows of maps,
// margins or padding. Immutable once made.
struct Regions {
  int num_tokens = 0;
  int num_windows = 0;
  int window_queries = 0;  // places of a window
  int window_keys = 0;     // places of a window with its margin
  int num_chunks = 0;
  int chunk_members = 0;         // places of a chunk with its margin
  std::vector<int32_t> queries;  // [num_windows, window_queries]
  std::vector<int32_t> keys;     // [num_windows, window_keys]
  std::vector<int32_t> members;  // [num_chunks, chunk_members]

  std::span<const int32_t> queries_of(int window) const {
    return {queries.data() + int64_t{window} * window_queries, size_t(window_queries)};
  }
  std::span<const int32_t> keys_of(int window) const {
    return {keys.data() + int64_t{window} * window_keys, size_t(window_keys)};
  }
  std::span<const int32_t> members_of(int chunk) const {
    return {members.data() + int64_t{chunk} * chunk_members, size_t(chunk_members)};
  }
};

// One sequence or map of a batch.
struct RegionItem {
  const Regions* regions = nullptr;
  int64_t token_begin = 0;     // row of its first token in q, k, v and out
  int64_t landmark_begin = 0;  // the chunks of the items before it, as they lie in k_bar and beta
};

// Squares go row by row, and so do the places of a square.
//
// Source: "Efficient Attention via Control Variates" (arXiv 2302.04542) in the form of its
// published code.
absl::StatusOr<Regions> MakeRegions(const RegionShape& shape);

// InvalidArgument, naming the table, if its size does not fit the counts or an index is neither -1
// nor a token.
absl::Status Validate(const Regions& regions);

// InvalidArgument, naming the item, if one has no regions or wrong ones, or begins before 0.
absl::Status ValidateItems(std::span<const RegionItem> items);

// InvalidArgument unless num_heads is positive and head_dim a multiple of 4 in [4, 128].
absl::Status ValidateHeads(int num_heads, int head_dim);

}  // namespace evaserve
