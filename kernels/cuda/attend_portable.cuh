#pragma once

// Attention on any device from sm_80 on: four warps of 16 queries each, 64 slots a step, products
// by mma.sync, the slots of the next step on their way (cp.async) while this one is multiplied.

#include "kernels/cuda/attend_args.h"
#include "kernels/cuda/mma_tile.cuh"

namespace evaserve {

template <DType kType, int kHeadDim>
struct PortableAttend {
  using Image = PageImage<kHeadDim>;
  using Tile = MmaTile<kType, kHeadDim>;
  using Softmax = typename Tile::Softmax;
  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kRows = kWarps * Tile::kWarpRows;
  static constexpr int kSlots = Tile::kSlots;
  static constexpr int kTileBytes = Tile::kBytes;
  static constexpr int kSharedBytes = 5 * kTileBytes;  // queries; keys and values, twice
  static constexpr int kDimTiles = Tile::kDimTiles;
  static constexpr int kSlotTiles = Tile::kSlotTiles;

  const CudaAttendArgs& args;
  const CudaSequence& sequence;
  const int row_begin, num_rows, head;
  const int thread = ptx::ThreadIndex(), lane = thread % 32, warp = thread / 32;
  const ptx::SharedAddress queries = ptx::AddressOf(ptx::SharedMemory());
  const ptx::SharedAddress slots = queries + kTileBytes;

  EVASERVE_DEVICE ptx::SharedAddress keys(int stage) const {
    return slots + stage * 2 * kTileBytes;
  }
  EVASERVE_DEVICE ptx::SharedAddress values(int stage) const { return keys(stage) + kTileBytes; }

  EVASERVE_DEVICE void LoadQueries() const {
    constexpr int kPieces = kHeadDim / 8;
    const auto* q = static_cast<const uint16_t*>(args.q) + int64_t{head} * kHeadDim;
    for (int i = thread; i < kRows * kPieces; i += kThreads) {
      const int row = i / kPieces, piece = i % kPieces;
      const bool is_valid = row < num_rows;
      const int64_t token = sequence.query_begin + row_begin + (is_valid ? row : 0);
      ptx::CopyAsync(queries + Tile::Offset(row, piece), q + token * args.q_stride + piece * 8,
                     is_valid);
    }
  }

  // Slots that were never written may hold NaN: zeros take their place. What does not depend on the
  // thread is known to the compiler, or head_dim 128 would need more registers than there are.
  EVASERVE_DEVICE void LoadSlots(const CudaSlotBlock& block, int stage) const {
    constexpr int kStepBytes = kThreads * 16, kTileBlockBytes = kSlots * Image::kRowBytes;
    static_assert(kTileBlockBytes % kStepBytes == 0 && kStepBytes % Image::kRowBytes == 0);
    const int first = thread * 16;
    const char* const from = args.pool + args.pages[block.page] * args.page_bytes +
                             int64_t{head} * 2 * Image::kBytes + block.begin * Image::kRowBytes +
                             first;
    const int written = block.written - first / Image::kRowBytes;
    EVASERVE_UNROLL
    for (int i = 0; i < kTileBytes; i += kStepBytes) {
      const int in_block = i % kTileBlockBytes;
      const int offset = i / kTileBlockBytes * Image::kBlockBytes + in_block;
      const bool is_written = in_block / Image::kRowBytes < written;
      ptx::CopyAsync(keys(stage) + first + i, from + offset, is_written);
      ptx::CopyAsync(values(stage) + first + i, from + Image::kBytes + offset, is_written);
    }
  }

  EVASERVE_DEVICE void Hide(const CudaSlotBlock& block, float (&s)[kSlotTiles][4]) const {
    EVASERVE_UNROLL
    for (int r = 0; r < 2; ++r) {
      const int row = warp * 16 + lane / 4 + r * 8;
      EVASERVE_UNROLL
      for (int word = 0; word < kSlots / 32; ++word) {
        Tile::Hide(VisibleSlots(args, sequence, block, row_begin, row, word), word, r, lane, s);
      }
    }
  }

  EVASERVE_DEVICE void Write(const Softmax& softmax, const float (&out)[kDimTiles][4]) const {
    EVASERVE_UNROLL
    for (int r = 0; r < 2; ++r) {
      const float sum = Tile::Normaliser(softmax, r);
      const int row = warp * 16 + lane / 4 + r * 8;
      if (row >= num_rows) continue;
      const int64_t token = sequence.query_begin + row_begin + row;
      auto* to = static_cast<uint16_t*>(args.out) + token * args.out_stride +
                 int64_t{head} * kHeadDim + lane % 4 * 2;
      EVASERVE_UNROLL
      for (int d = 0; d < kDimTiles; ++d) {
        *reinterpret_cast<uint32_t*>(to + d * 8) =
            ptx::PackHalves<kType>(out[d][2 * r] / sum, out[d][2 * r + 1] / sum);
      }
      if (args.lse != nullptr && lane % 4 == 0) {
        args.lse[token * args.num_heads + head] = Tile::Lse(args.scale_log2, softmax, r, sum);
      }
    }
  }

  EVASERVE_DEVICE void Run() const {
    const SlotBlockWalk<kSlots> walk(sequence, row_begin, num_rows);
    const int num_blocks = walk.num_blocks();
    LoadQueries();
    LoadSlots(walk.At(0), 0);
    ptx::CommitCopies();
    float out[kDimTiles][4] = {};
    Softmax softmax;
    for (int i = 0; i < num_blocks; ++i) {
      const int stage = i % 2;
      ptx::WaitForCopies<0>();
      ptx::SyncBlock();
      if (i + 1 < num_blocks) LoadSlots(walk.At(i + 1), 1 - stage);
      ptx::CommitCopies();
      float s[kSlotTiles][4];
      Tile::MultiplyKeys(queries, warp * Tile::kWarpRows, keys(stage), lane, s);
      if (i < walk.num_masked()) Hide(walk.At(i), s);
      Tile::Weigh(args.scale_log2, s, softmax, out);
      Tile::MultiplyValues(s, values(stage), lane, out);
    }
    Write(softmax, out);
  }
};

// One block per tile and head, the heads of a tile next to each other.
template <DType kType, int kHeadDim>
EVASERVE_KERNEL((PortableAttend<kType, kHeadDim>::kThreads), 2)
AttendPortableKernel(const EVASERVE_GRID_CONSTANT CudaAttendArgs args) {
  using Kernel = PortableAttend<kType, kHeadDim>;
  const CudaTile tile = args.tiles[ptx::BlockIndex() / args.num_heads];
  const CudaSequence& sequence = args.sequences[tile.sequence];
  const int left = sequence.num_queries - tile.row_begin;
  const Kernel kernel{args, sequence, tile.row_begin, left < Kernel::kRows ? left : Kernel::kRows,
                      ptx::BlockIndex() % args.num_heads};
  kernel.Run();
}

}  // namespace evaserve
