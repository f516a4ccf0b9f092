#pragma once

// Attention on any device from sm_80 on: four warps of 16 queries each, 64 slots a step, products
// by mma.sync, the slots of the next step on their way (cp.async) while this one is multiplied.

#include "kernels/cuda/attend_args.h"
#include "kernels/cuda/ptx.h"

namespace evaserve {

template <DType kType, int kHeadDim>
struct PortableAttend {
  using Image = PageImage<kHeadDim>;
  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kRows = kWarps * 16;
  static constexpr int kSlots = 64;
  static constexpr int kTileBytes = kSlots * kHeadDim * 2;
  static constexpr int kSharedBytes = 5 * kTileBytes;  // queries; keys and values, twice
  static constexpr float kHidden = -1e30f;

  static constexpr int kDimSteps = kHeadDim / 16;
  static constexpr int kSlotSteps = kSlots / 16;
  static constexpr int kDimTiles = kHeadDim / 8;
  static constexpr int kSlotTiles = kSlots / 8;
  static constexpr int kRowPieces = Image::kRowBytes / 16;

  struct Softmax {
    float max[2] = {kHidden, kHidden};
    float sum[2] = {0.f, 0.f};
  };

  const CudaAttendArgs& args;
  const CudaSequence& sequence;
  const int row_begin, num_rows, head;
  const int thread = ptx::ThreadIndex(), lane = thread % 32, warp = thread / 32;
  const ptx::SharedAddress queries = ptx::AddressOf(ptx::SharedMemory());
  const ptx::SharedAddress slots = queries + kTileBytes;

  // Tiles in shared memory are as pages are, with kSlots rows.
  EVASERVE_DEVICE static uint32_t TileOffset(int row, int piece) {
    return piece / kRowPieces * (kSlots * Image::kRowBytes) +
           Image::Swizzle(row, piece % kRowPieces * 16);
  }
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
      ptx::CopyAsync(queries + TileOffset(row, piece), q + token * args.q_stride + piece * 8,
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

  // Logits of the warp's 16 rows, not yet scaled.
  EVASERVE_DEVICE void MultiplyKeys(int stage, float (&s)[kSlotTiles][4]) const {
    EVASERVE_UNROLL
    for (int j = 0; j < kSlotTiles; ++j) {
      EVASERVE_UNROLL
      for (int i = 0; i < 4; ++i) s[j][i] = 0.f;
    }
    EVASERVE_UNROLL
    for (int k = 0; k < kDimSteps; ++k) {
      uint32_t q[4];
      ptx::LoadMatrices(q, queries + TileOffset(warp * 16 + lane % 16, 2 * k + lane / 16),
                        /*transposed=*/false);
      EVASERVE_UNROLL
      for (int j = 0; j < kSlotSteps; ++j) {
        uint32_t b[4];
        ptx::LoadMatrices(
            b, keys(stage) + TileOffset(j * 16 + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2),
            /*transposed=*/false);
        ptx::Mma<kType>(s[2 * j], q, b[0], b[1]);
        ptx::Mma<kType>(s[2 * j + 1], q, b[2], b[3]);
      }
    }
  }

  EVASERVE_DEVICE void Hide(const CudaSlotBlock& block, float (&s)[kSlotTiles][4]) const {
    EVASERVE_UNROLL
    for (int r = 0; r < 2; ++r) {
      const int row = warp * 16 + lane / 4 + r * 8;
      EVASERVE_UNROLL
      for (int word = 0; word < kSlots / 32; ++word) {
        const uint32_t visible =
            VisibleSlots(args, sequence, block, row_begin, row, word) >> lane % 4 * 2;
        EVASERVE_UNROLL
        for (int j = 0; j < 4; ++j) {
          float* const logits = &s[word * 4 + j][2 * r];
          if ((visible >> (8 * j) & 1) == 0) logits[0] = kHidden;
          if ((visible >> (8 * j + 1) & 1) == 0) logits[1] = kHidden;
        }
      }
    }
  }

  // Logits become weights; what is in `out` moves to the new maximum.
  EVASERVE_DEVICE void Weigh(float (&s)[kSlotTiles][4], Softmax& softmax,
                             float (&out)[kDimTiles][4]) const {
    EVASERVE_UNROLL
    for (int r = 0; r < 2; ++r) {
      float max = softmax.max[r];
      EVASERVE_UNROLL
      for (int j = 0; j < kSlotTiles; ++j) max = fmaxf(max, fmaxf(s[j][2 * r], s[j][2 * r + 1]));
      max = fmaxf(max, ptx::ShuffleXor(max, 1));
      max = fmaxf(max, ptx::ShuffleXor(max, 2));
      const float correction = ptx::Exp2((softmax.max[r] - max) * args.scale_log2);
      // A row that has seen nothing yet gets weights of 0: of equal hugenesses Fma leaves a rest.
      const float base = fmaxf(max, 0.5f * kHidden) * args.scale_log2;
      float sum = 0.f;
      EVASERVE_UNROLL
      for (int j = 0; j < kSlotTiles; ++j) {
        EVASERVE_UNROLL
        for (int i = 2 * r; i < 2 * r + 2; ++i) {
          s[j][i] = ptx::Exp2(ptx::Fma(s[j][i], args.scale_log2, -base));
          sum += s[j][i];
        }
      }
      softmax.max[r] = max;
      softmax.sum[r] = softmax.sum[r] * correction + sum;
      EVASERVE_UNROLL
      for (int d = 0; d < kDimTiles; ++d) {
        out[d][2 * r] *= correction;
        out[d][2 * r + 1] *= correction;
      }
    }
  }

  EVASERVE_DEVICE void MultiplyValues(const float (&s)[kSlotTiles][4], int stage,
                                      float (&out)[kDimTiles][4]) const {
    EVASERVE_UNROLL
    for (int k = 0; k < kSlotSteps; ++k) {
      const uint32_t weights[4] = {ptx::PackHalves<kType>(s[2 * k][0], s[2 * k][1]),
                                   ptx::PackHalves<kType>(s[2 * k][2], s[2 * k][3]),
                                   ptx::PackHalves<kType>(s[2 * k + 1][0], s[2 * k + 1][1]),
                                   ptx::PackHalves<kType>(s[2 * k + 1][2], s[2 * k + 1][3])};
      EVASERVE_UNROLL
      for (int d = 0; d < kHeadDim / 16; ++d) {
        uint32_t b[4];
        ptx::LoadMatrices(b, values(stage) + TileOffset(k * 16 + lane % 16, 2 * d + lane / 16),
                          /*transposed=*/true);
        ptx::Mma<kType>(out[2 * d], weights, b[0], b[1]);
        ptx::Mma<kType>(out[2 * d + 1], weights, b[2], b[3]);
      }
    }
  }

  EVASERVE_DEVICE void Write(Softmax& softmax, const float (&out)[kDimTiles][4]) const {
    EVASERVE_UNROLL
    for (int r = 0; r < 2; ++r) {
      float sum = softmax.sum[r];
      sum += ptx::ShuffleXor(sum, 1);
      sum += ptx::ShuffleXor(sum, 2);
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
        args.lse[token * args.num_heads + head] =
            (softmax.max[r] * args.scale_log2 + ptx::Log2(sum)) * 0.693147180559945309f;
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
      MultiplyKeys(stage, s);
      if (i < walk.num_masked()) Hide(walk.At(i), s);
      Weigh(s, softmax, out);
      MultiplyValues(s, stage, out);
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
