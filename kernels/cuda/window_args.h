#pragma once

// What the kernels of the paper's EVA get (window_attend.cuh, landmarks.cuh): plain structs, on the
// host and on the device. Who sees whom is in tables made on the host (window_plan.h), so the
// kernels know nothing of maps, margins or padding; causal EVA adds two bounds to them.

#include <cstdint>

#include "kernels/cuda/half.h"

namespace evaserve {

// One sequence or map of the batch, with the windows that it attends in. Its tables lie in
// `tables` of the arguments, from the numbers below on. Those of rows hold rows of the item; -1 is
// a place outside of its tokens.
struct CudaRegionItem {
  int64_t query_begin = 0;     // row of its first token in q and out
  int64_t key_begin = 0;       // of its first token in k and v
  int64_t landmark_begin = 0;  // the landmarks before it, as they lie in k_bar and beta
  int32_t num_landmarks = 0;   // that k_bar and beta have places for, for each head
  int32_t position = 0;        // of the first place of its window 0; read with a causal_chunk
  int32_t queries = 0;         // [windows, window_queries]
  int32_t keys = 0;            // [windows, window_keys]
  int32_t inside = 0;  // [windows, words]: bit i % 32 of word i / 32 is set if keys[i] is a row
  int32_t window_queries = 0;
  int32_t window_keys = 0;

  EVASERVE_HOST_DEVICE int words() const { return (window_keys + 31) / 32; }
};

// Some rows of one window, for all heads. A row is a place of the window. The last one is a token.
struct CudaWindowTile {
  int32_t item = 0;
  int32_t window = 0;
  int32_t row_begin = 0;
  int32_t num_rows = 0;
};

// The columns of a query are its window's keys, then the landmarks of the item.
struct WindowAttendArgs {
  const CudaRegionItem* items = nullptr;
  const CudaWindowTile* tiles = nullptr;
  const int32_t* tables = nullptr;
  int num_tiles = 0;
  int tile_rows = 0;
  int num_heads = 0;
  int head_dim = 0;         // a multiple of 8
  const void* q = nullptr;  // [tokens, num_heads, head_dim]
  int64_t q_stride = 0;     // elements between two tokens, a multiple of 8, as are the others
  const void* k = nullptr;
  const void* v = nullptr;
  int64_t kv_stride = 0;
  // For each item, from landmark_begin * num_heads * head_dim on: [num_heads, num_landmarks,
  // head_dim].
  const void* k_bar = nullptr;
  const void* beta = nullptr;
  const float* bias = nullptr;   // [num_heads, window_queries, window_keys]; null means none
  int64_t bias_head_stride = 0;  // elements; 0: the same for all heads
  void* out = nullptr;           // as q
  int64_t out_stride = 0;
  float* lse = nullptr;  // [tokens, num_heads], natural log of the normaliser; may be null
  float scale = 0.f;
  // Tokens in a chunk if attention is causal, else 0. Then the row at place i of a window sees keys
  // up to place extension + i, and the landmarks of the chunks before its own.
  int causal_chunk = 0;
  int extension = 0;
};

// What the rows of a window see, as bounds of columns: keys [0, keys), and the landmarks
// [0, landmarks) behind them.
struct CudaSeen {
  int keys = 0;
  int landmarks = 0;
};

EVASERVE_HOST_DEVICE CudaSeen SeenAt(const WindowAttendArgs& args, const CudaRegionItem& item,
                                     const CudaWindowTile& tile, int row) {
  if (args.causal_chunk == 0) return {item.window_keys, item.num_landmarks};
  const int position = item.position + tile.window * item.window_queries + row;
  const int keys = args.extension + row + 1;
  return {keys < item.window_keys ? keys : item.window_keys, position / args.causal_chunk};
}

// What all of a tile's rows see together: nothing behind it is read, and may be anything.
EVASERVE_HOST_DEVICE CudaSeen SeenByTile(const WindowAttendArgs& args, const CudaRegionItem& item,
                                         const CudaWindowTile& tile) {
  return SeenAt(args, item, tile, tile.row_begin + tile.num_rows - 1);
}

// The token of a row, or -1.
EVASERVE_HOST_DEVICE int QueryAt(const WindowAttendArgs& args, const CudaRegionItem& item,
                                 const CudaWindowTile& tile, int row) {
  if (row >= tile.row_begin + tile.num_rows) return -1;
  return args.tables[item.queries + int64_t{tile.window} * item.window_queries + row];
}

// Where the key and the value of a column lie: `element` of k and v, or of k_bar and beta.
struct CudaColumn {
  int64_t element = -1;  // -1: nowhere
  bool is_landmark = false;
};

// Of those that are seen.
EVASERVE_HOST_DEVICE CudaColumn ColumnAt(const WindowAttendArgs& args, const CudaRegionItem& item,
                                         const CudaWindowTile& tile, const CudaSeen& seen, int head,
                                         int column) {
  const int landmark = column - item.window_keys;
  if (landmark >= 0) {
    if (landmark >= seen.landmarks) return {};
    const int64_t row =
        item.landmark_begin * args.num_heads + int64_t{head} * item.num_landmarks + landmark;
    return {row * args.head_dim, true};
  }
  if (column >= seen.keys) return {};
  const int token = args.tables[item.keys + int64_t{tile.window} * item.window_keys + column];
  if (token < 0) return {};
  return {(item.key_begin + token) * args.kv_stride + int64_t{head} * args.head_dim, false};
}

// The first `count` of 32 bits; count may be anything.
EVASERVE_HOST_DEVICE uint32_t FirstBits(int count) {
  return count <= 0 ? 0u : count >= 32 ? ~0u : (1u << count) - 1;
}

// Which of columns [32 * word, 32 * word + 32) a row sees, a bit each.
EVASERVE_HOST_DEVICE uint32_t SeenColumns(const WindowAttendArgs& args, const CudaRegionItem& item,
                                          const CudaWindowTile& tile, const CudaSeen& seen,
                                          int word) {
  const int first = 32 * word, landmarks = item.window_keys - first;
  uint32_t bits = FirstBits(landmarks + seen.landmarks) & ~FirstBits(landmarks);
  if (word < item.words()) {
    const int64_t at = item.inside + int64_t{tile.window} * item.words() + word;
    bits |= static_cast<uint32_t>(args.tables[at]) & FirstBits(seen.keys - first);
  }
  return bits;
}

// The blocks of kColumns columns that have something within the bounds.
template <int kColumns>
class ColumnBlockWalk {
 public:
  EVASERVE_HOST_DEVICE ColumnBlockWalk(const CudaRegionItem& item, const CudaSeen& seen) {
    const int first_landmark = item.window_keys / kColumns;
    num_key_blocks_ = (seen.keys + kColumns - 1) / kColumns;
    const int end = (item.window_keys + seen.landmarks + kColumns - 1) / kColumns;
    skip_ = num_key_blocks_ < first_landmark ? first_landmark - num_key_blocks_ : 0;
    const int with_landmarks = end - skip_;
    num_blocks_ =
        seen.landmarks > 0 && with_landmarks > num_key_blocks_ ? with_landmarks : num_key_blocks_;
  }

  EVASERVE_HOST_DEVICE int num_blocks() const { return num_blocks_; }
  // The first column of block i.
  EVASERVE_HOST_DEVICE int At(int i) const {
    return (i < num_key_blocks_ ? i : i + skip_) * kColumns;
  }

 private:
  int num_key_blocks_;  // what lies behind them up to the landmarks is not seen
  int skip_;
  int num_blocks_;
};

// Up to kCudaChunkGroup consecutive chunks of one item.
inline constexpr int kCudaChunkGroup = 8;
struct CudaChunkGroup {
  int32_t item = 0;
  int32_t members = 0;   // where the rows of the first one are in `tables`, the others' behind them
  int32_t landmark = 0;  // of the first one, in the item
  int32_t num_chunks = 0;
  int32_t num_members = 0;  // of a chunk
};

// The learned map of the mean of a chunk (AdaptiveMap in kernels/landmarks.h), in float32.
struct CudaMap {
  const float* weight = nullptr;       // [in, out], both head_dim; null: there is no map
  const float* bias = nullptr;         // [head_dim]
  const float* norm_weight = nullptr;  // [head_dim]; null: no norm
  const float* norm_bias = nullptr;
};

struct LandmarksArgs {
  const CudaRegionItem* items = nullptr;
  const CudaChunkGroup* groups = nullptr;
  const int32_t* tables = nullptr;
  int num_groups = 0;
  int num_heads = 0;
  int head_dim = 0;         // a multiple of 8
  const void* q = nullptr;  // [tokens, num_heads, head_dim]; rows of an item begin at its key_begin
  const void* k = nullptr;
  const void* v = nullptr;
  int64_t stride = 0;  // elements between two tokens of all three, a multiple of 8
  CudaMap map_q;
  CudaMap map_k;
  float mu_scale = 0.5f;
  float scale = 0.f;
  void* k_bar = nullptr;  // as in WindowAttendArgs
  void* beta = nullptr;
};

}  // namespace evaserve
