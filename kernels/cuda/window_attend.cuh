#pragma once

// Attention of the paper's EVA in 16-bit types, from sm_80 on: a block takes up to 64 queries of
// one window and head, 16 a warp, and goes over its columns 64 at a time, keys first and landmarks
// behind them in the same tiles. Rows are gathered by cp.async while the tile before is multiplied;
// places without a token are filled with zeros and hidden. Head sizes between those that there are
// tiles for are filled with zeros as well.

#include "kernels/cuda/mma_tile.cuh"
#include "kernels/cuda/window_args.h"

namespace evaserve {

template <DType kType, int kHeadDim>
struct WindowAttend {
  using Tile = MmaTile<kType, kHeadDim>;
  using Softmax = typename Tile::Softmax;
  static constexpr int kMaxWarps = 4;
  static constexpr int kMaxThreads = kMaxWarps * 32;
  static constexpr int kColumns = Tile::kSlots;
  static constexpr int kPieces = kHeadDim / 8;           // 16 bytes each
  static constexpr int kSharedBytes = 5 * Tile::kBytes;  // queries; keys and values, twice
  static constexpr int kMaxRows = kMaxWarps * Tile::kWarpRows;
  static constexpr int kMinBlocks = kHeadDim <= 32 ? 4 : kHeadDim <= 64 ? 3 : 2;

  const WindowAttendArgs& args;
  const CudaRegionItem& item;
  const CudaWindowTile& tile;
  const int head;
  const int num_threads = args.tile_rows / Tile::kWarpRows * 32;
  const int thread = ptx::ThreadIndex(), lane = thread % 32, warp = thread / 32;
  const ptx::SharedAddress queries = ptx::AddressOf(ptx::SharedMemory());

  EVASERVE_DEVICE ptx::SharedAddress keys(int stage) const {
    return queries + (1 + stage * 2) * Tile::kBytes;
  }
  EVASERVE_DEVICE ptx::SharedAddress values(int stage) const { return keys(stage) + Tile::kBytes; }
  // Of the lane: r is 0 or 1.
  EVASERVE_DEVICE int Row(int r) const {
    return tile.row_begin + warp * Tile::kWarpRows + lane / 4 + r * 8;
  }

  EVASERVE_DEVICE void LoadQueries() const {
    const auto* const q = static_cast<const uint16_t*>(args.q) + int64_t{head} * args.head_dim;
    for (int i = thread; i < args.tile_rows * kPieces; i += num_threads) {
      const int row = i / kPieces, piece = i % kPieces;
      const int token = QueryAt(args, item, tile, tile.row_begin + row);
      const bool is_there = token >= 0 && piece * 8 < args.head_dim;
      const int64_t at = is_there ? (item.query_begin + token) * args.q_stride + piece * 8 : 0;
      ptx::CopyAsync(queries + Tile::Offset(row, piece), q + at, is_there);
    }
  }

  EVASERVE_DEVICE void LoadColumns(const CudaSeen& seen, int first, int stage) const {
    for (int i = thread; i < kColumns * kPieces; i += num_threads) {
      const int row = i / kPieces, piece = i % kPieces;
      const CudaColumn column = ColumnAt(args, item, tile, seen, head, first + row);
      const bool is_there = column.element >= 0 && piece * 8 < args.head_dim;
      const int64_t at = is_there ? column.element + piece * 8 : 0;
      const void* const k = column.is_landmark ? args.k_bar : args.k;
      const void* const v = column.is_landmark ? args.beta : args.v;
      const uint32_t offset = Tile::Offset(row, piece);
      ptx::CopyAsync(keys(stage) + offset, static_cast<const uint16_t*>(k) + at, is_there);
      ptx::CopyAsync(values(stage) + offset, static_cast<const uint16_t*>(v) + at, is_there);
    }
  }

  // Logits are scaled later, so a bias is divided by the scale.
  EVASERVE_DEVICE void AddBias(int first, float (&s)[Tile::kSlotTiles][4]) const {
    const float factor = 1.f / args.scale;
    EVASERVE_UNROLL
    for (int r = 0; r < 2; ++r) {
      const int row = Row(r);
      if (row >= item.window_queries) continue;
      const float* const bias =
          args.bias + head * args.bias_head_stride + int64_t{row} * item.window_keys;
      EVASERVE_UNROLL
      for (int j = 0; j < Tile::kSlotTiles; ++j) {
        EVASERVE_UNROLL
        for (int i = 0; i < 2; ++i) {
          const int column = first + j * 8 + lane % 4 * 2 + i;
          if (column >= item.window_keys) continue;
          s[j][2 * r + i] = ptx::Fma(bias[column], factor, s[j][2 * r + i]);
        }
      }
    }
  }

  EVASERVE_DEVICE void Hide(int first, float (&s)[Tile::kSlotTiles][4]) const {
    EVASERVE_UNROLL
    for (int r = 0; r < 2; ++r) {
      const CudaSeen seen = SeenAt(args, item, tile, Row(r));
      EVASERVE_UNROLL
      for (int word = 0; word < kColumns / 32; ++word) {
        Tile::Hide(SeenColumns(args, item, tile, seen, first / 32 + word), word, r, lane, s);
      }
    }
  }

  EVASERVE_DEVICE void Write(const Softmax& softmax, float scale_log2,
                             const float (&out)[Tile::kDimTiles][4]) const {
    EVASERVE_UNROLL
    for (int r = 0; r < 2; ++r) {
      const float sum = Tile::Normaliser(softmax, r);
      const int query = QueryAt(args, item, tile, Row(r));
      if (query < 0) continue;
      const int64_t token = item.query_begin + query;
      auto* const to = static_cast<uint16_t*>(args.out) + token * args.out_stride +
                       int64_t{head} * args.head_dim + lane % 4 * 2;
      EVASERVE_UNROLL
      for (int d = 0; d < Tile::kDimTiles; ++d) {
        if (d * 8 >= args.head_dim) continue;
        *reinterpret_cast<uint32_t*>(to + d * 8) =
            ptx::PackHalves<kType>(out[d][2 * r] / sum, out[d][2 * r + 1] / sum);
      }
      if (args.lse != nullptr && lane % 4 == 0) {
        args.lse[token * args.num_heads + head] = Tile::Lse(scale_log2, softmax, r, sum);
      }
    }
  }

  EVASERVE_DEVICE void Run() const {
    const float scale_log2 = args.scale * 1.44269504088896341f;
    const CudaSeen seen = SeenByTile(args, item, tile);
    const ColumnBlockWalk<kColumns> walk(item, seen);
    LoadQueries();
    LoadColumns(seen, walk.At(0), 0);
    ptx::CommitCopies();
    float out[Tile::kDimTiles][4] = {};
    Softmax softmax;
    for (int i = 0; i < walk.num_blocks(); ++i) {
      const int stage = i % 2, first = walk.At(i);
      ptx::WaitForCopies<0>();
      ptx::SyncBlock();
      if (i + 1 < walk.num_blocks()) LoadColumns(seen, walk.At(i + 1), 1 - stage);
      ptx::CommitCopies();
      float s[Tile::kSlotTiles][4];
      Tile::MultiplyKeys(queries, warp * Tile::kWarpRows, keys(stage), lane, s);
      if (args.bias != nullptr && first < item.window_keys) AddBias(first, s);
      Hide(first, s);
      Tile::Weigh(scale_log2, s, softmax, out);
      Tile::MultiplyValues(s, values(stage), lane, out);
    }
    Write(softmax, scale_log2, out);
  }
};

// One block of args.tile_rows / 16 warps per tile and head, the heads of a tile next to each other.
template <DType kType, int kHeadDim>
EVASERVE_KERNEL((WindowAttend<kType, kHeadDim>::kMaxThreads),
                (WindowAttend<kType, kHeadDim>::kMinBlocks))
WindowAttendKernel(const EVASERVE_GRID_CONSTANT WindowAttendArgs args) {
  const CudaWindowTile tile = args.tiles[ptx::BlockIndex() / args.num_heads];
  const CudaRegionItem& item = args.items[tile.item];
  const WindowAttend<kType, kHeadDim> kernel{args, item, tile, ptx::BlockIndex() % args.num_heads};
  kernel.Run();
}

}  // namespace evaserve
