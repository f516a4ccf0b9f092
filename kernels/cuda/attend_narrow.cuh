#pragma once

// Attention for few queries (decoding, small trees), from sm_80 on. The slots that up to 16 queries
// of a head see are cut into splits; a block takes splits until none is left, and each of its warps
// its own groups of 16 slots, with its own softmax and copies in flight. Whoever finishes the last
// split of a tile joins the results of all of them, in their order.
//
// The grid does not depend on the batch, and what does lies in device memory: a CUDA graph that
// holds this launch serves any lengths.

#include "kernels/cuda/attend_args.h"
#include "kernels/cuda/ptx.h"

namespace evaserve {

template <DType kType, int kHeadDim>
struct NarrowAttend {
  using Image = PageImage<kHeadDim>;
  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kRows = 16;
  static constexpr int kSlots = kCudaSplitSlots;
  static constexpr int kStages = 3;
  static constexpr int kTileBytes = kSlots * kHeadDim * 2;
  static constexpr int kWarpBytes = kStages * 2 * kTileBytes;
  // A row of a partial result: the sums, the maximum, the sum of weights.
  static constexpr int kRowFloats = kHeadDim + 2;
  static constexpr int kPartialFloats = kRows * kRowFloats;
  static constexpr int kSharedBytes = kWarps * kWarpBytes + 16;
  static_assert(kPartialFloats * 4 <= kWarpBytes);
  static constexpr float kHidden = -1e30f;
  static constexpr int kDimTiles = kHeadDim / 8;
  static constexpr int kRowPieces = Image::kRowBytes / 16;

  struct Softmax {
    float max[2] = {kHidden, kHidden};
    float sum[2] = {0.f, 0.f};
  };

  const NarrowAttendArgs& args;
  const CudaSplit& split;
  const CudaSequence& sequence;
  const int row_begin, num_rows, head;
  const int thread = ptx::ThreadIndex(), lane = thread % 32, warp = thread / 32;
  const ptx::SharedAddress shared = ptx::AddressOf(ptx::SharedMemory());

  EVASERVE_DEVICE static uint32_t TileOffset(int row, int piece) {
    return piece / kRowPieces * (kSlots * Image::kRowBytes) +
           Image::Swizzle(row, piece % kRowPieces * 16);
  }
  EVASERVE_DEVICE ptx::SharedAddress keys(int stage) const {
    return shared + warp * kWarpBytes + stage * 2 * kTileBytes;
  }
  EVASERVE_DEVICE ptx::SharedAddress values(int stage) const { return keys(stage) + kTileBytes; }

  // Fragments of the 16 rows; those that there are not are zero.
  EVASERVE_DEVICE void LoadQueries(uint32_t (&q)[kHeadDim / 16][4]) const {
    const auto* from = static_cast<const uint16_t*>(args.attend.q) + int64_t{head} * kHeadDim;
    EVASERVE_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i % 2 * 8;
      const int64_t token = sequence.query_begin + row_begin + row;
      EVASERVE_UNROLL
      for (int k = 0; k < kHeadDim / 16; ++k) {
        const int dim = k * 16 + i / 2 * 8 + lane % 4 * 2;
        q[k][i] =
            row < num_rows
                ? *reinterpret_cast<const uint32_t*>(from + token * args.attend.q_stride + dim)
                : 0;
      }
    }
  }

  // Slots that were never written may hold NaN: zeros take their place.
  EVASERVE_DEVICE void LoadSlots(const CudaSlotBlock& block, int stage) const {
    const char* const page = args.attend.pool +
                             args.attend.pages[block.page] * args.attend.page_bytes +
                             int64_t{head} * 2 * Image::kBytes;
    constexpr int kBlockBytes = kSlots * Image::kRowBytes;
    EVASERVE_UNROLL
    for (int begin = 0; begin < kTileBytes; begin += 32 * 16) {
      const int at = begin + lane * 16, in_block = at % kBlockBytes;
      const char* const from =
          page + at / kBlockBytes * Image::kBlockBytes + block.begin * Image::kRowBytes + in_block;
      const bool is_written = in_block / Image::kRowBytes < block.written;
      ptx::CopyAsync(keys(stage) + at, from, is_written);
      ptx::CopyAsync(values(stage) + at, from + Image::kBytes, is_written);
    }
  }

  EVASERVE_DEVICE void MultiplyKeys(const uint32_t (&q)[kHeadDim / 16][4], int stage,
                                    float (&s)[2][4]) const {
    EVASERVE_UNROLL
    for (int k = 0; k < kHeadDim / 16; ++k) {
      uint32_t b[4];
      ptx::LoadMatrices(b, keys(stage) + TileOffset(lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2),
                        /*transposed=*/false);
      ptx::Mma<kType>(s[0], q[k], b[0], b[1]);
      ptx::Mma<kType>(s[1], q[k], b[2], b[3]);
    }
  }

  EVASERVE_DEVICE void Hide(const CudaSlotBlock& block, float (&s)[2][4]) const {
    EVASERVE_UNROLL
    for (int r = 0; r < 2; ++r) {
      const uint32_t visible =
          VisibleSlots(args.attend, sequence, block, row_begin, lane / 4 + r * 8, 0) >>
          lane % 4 * 2;
      EVASERVE_UNROLL
      for (int j = 0; j < 2; ++j) {
        if ((visible >> (8 * j) & 1) == 0) s[j][2 * r] = kHidden;
        if ((visible >> (8 * j + 1) & 1) == 0) s[j][2 * r + 1] = kHidden;
      }
    }
  }

  EVASERVE_DEVICE void Weigh(float (&s)[2][4], Softmax& softmax, float (&out)[kDimTiles][4]) const {
    const float scale = args.attend.scale_log2;
    EVASERVE_UNROLL
    for (int r = 0; r < 2; ++r) {
      float max = fmaxf(fmaxf(s[0][2 * r], s[0][2 * r + 1]), fmaxf(s[1][2 * r], s[1][2 * r + 1]));
      max = fmaxf(max, ptx::ShuffleXor(max, 1));
      max = fmaxf(max, ptx::ShuffleXor(max, 2));
      max = fmaxf(max, softmax.max[r]);
      const float correction = ptx::Exp2((softmax.max[r] - max) * scale);
      softmax.max[r] = max;
      softmax.sum[r] *= correction;
      EVASERVE_UNROLL
      for (int j = 0; j < 2; ++j) {
        EVASERVE_UNROLL
        for (int i = 2 * r; i < 2 * r + 2; ++i) {
          s[j][i] = ptx::Exp2((s[j][i] - max) * scale);
          softmax.sum[r] += s[j][i];
        }
      }
      EVASERVE_UNROLL
      for (int d = 0; d < kDimTiles; ++d) {
        out[d][2 * r] *= correction;
        out[d][2 * r + 1] *= correction;
      }
    }
  }

  EVASERVE_DEVICE void MultiplyValues(const float (&s)[2][4], int stage,
                                      float (&out)[kDimTiles][4]) const {
    const uint32_t weights[4] = {
        ptx::PackHalves<kType>(s[0][0], s[0][1]), ptx::PackHalves<kType>(s[0][2], s[0][3]),
        ptx::PackHalves<kType>(s[1][0], s[1][1]), ptx::PackHalves<kType>(s[1][2], s[1][3])};
    EVASERVE_UNROLL
    for (int d = 0; d < kHeadDim / 16; ++d) {
      uint32_t b[4];
      ptx::LoadMatrices(b, values(stage) + TileOffset(lane % 16, 2 * d + lane / 16),
                        /*transposed=*/true);
      ptx::Mma<kType>(out[2 * d], weights, b[0], b[1]);
      ptx::Mma<kType>(out[2 * d + 1], weights, b[2], b[3]);
    }
  }

  // This warp's groups of slots: every kWarps-th of the split.
  EVASERVE_DEVICE void Accumulate(Softmax& softmax, float (&out)[kDimTiles][4]) const {
    const SlotBlockWalk<kSlots> walk(sequence, row_begin, num_rows);
    const int first = split.block_begin + warp;
    const auto load = [&](int i, int stage) {
      if (i < split.block_end) LoadSlots(walk.At(i), stage);
      ptx::CommitCopies();
    };
    EVASERVE_UNROLL
    for (int stage = 0; stage < kStages - 1; ++stage) load(first + stage * kWarps, stage);
    uint32_t q[kHeadDim / 16][4];
    LoadQueries(q);
    int stage = 0;
    for (int i = first; i < split.block_end; i += kWarps) {
      ptx::WaitForCopies<kStages - 2>();
      ptx::SyncWarp();  // all lanes' copies are there, and nobody reads the oldest stage any more
      load(i + (kStages - 1) * kWarps, (stage + kStages - 1) % kStages);
      float s[2][4] = {};
      MultiplyKeys(q, stage, s);
      if (i < walk.num_masked()) Hide(walk.At(i), s);
      Weigh(s, softmax, out);
      MultiplyValues(s, stage, out);
      stage = (stage + 1) % kStages;
    }
    ptx::WaitForCopies<0>();
  }

  EVASERVE_DEVICE void StoreRows(Softmax& softmax, const float (&out)[kDimTiles][4],
                                 float* to) const {
    EVASERVE_UNROLL
    for (int r = 0; r < 2; ++r) {
      float sum = softmax.sum[r];
      sum += ptx::ShuffleXor(sum, 1);
      sum += ptx::ShuffleXor(sum, 2);
      float* const row = to + (lane / 4 + r * 8) * kRowFloats;
      EVASERVE_UNROLL
      for (int d = 0; d < kDimTiles; ++d) {
        row[d * 8 + lane % 4 * 2] = out[d][2 * r];
        row[d * 8 + lane % 4 * 2 + 1] = out[d][2 * r + 1];
      }
      if (lane % 4 == 0) {
        row[kHeadDim] = softmax.max[r];
        row[kHeadDim + 1] = sum;
      }
    }
  }

  // Dimension `dim` of a row of several results: its sum, and the maximum and sum of weights.
  struct Joined {
    float value = 0.f, max = kHidden, sum = 0.f;
  };
  EVASERVE_DEVICE Joined Join(const float* row, int64_t stride, int count, int dim) const {
    Joined joined;
    for (int i = 0; i < count; ++i) joined.max = fmaxf(joined.max, row[i * stride + kHeadDim]);
    for (int i = 0; i < count; ++i) {
      const float* const one = row + i * stride;
      const float factor = ptx::Exp2((one[kHeadDim] - joined.max) * args.attend.scale_log2);
      joined.value += one[dim] * factor;
      joined.sum += one[kHeadDim + 1] * factor;
    }
    return joined;
  }

  EVASERVE_DEVICE void Write(const Joined& joined, int row, int dim) const {
    const CudaAttendArgs& attend = args.attend;
    const int64_t token = sequence.query_begin + row_begin + row;
    auto* const to = static_cast<uint16_t*>(attend.out) + token * attend.out_stride +
                     int64_t{head} * kHeadDim + dim;
    *to = static_cast<uint16_t>(ptx::PackHalves<kType>(joined.value / joined.sum, 0.f));
    if (attend.lse != nullptr && dim == 0) {
      attend.lse[token * attend.num_heads + head] =
          (joined.max * attend.scale_log2 + ptx::Log2(joined.sum)) * 0.693147180559945309f;
    }
  }

  EVASERVE_DEVICE float* Partial(int index) const {
    return args.partials + (int64_t{index} * args.attend.num_heads + head) * kPartialFloats;
  }

  // Joins `count` results, stride floats apart, with fn(joined, row, dim).
  template <typename Fn>
  EVASERVE_DEVICE void JoinAll(const float* first, int64_t stride, int count, Fn&& fn) const {
    for (int i = thread; i < num_rows * kHeadDim; i += kThreads) {
      const int row = i / kHeadDim, dim = i % kHeadDim;
      fn(Join(first + row * kRowFloats, stride, count, dim), row, dim);
    }
  }

  // True for the threads of the block that is the last to come.
  EVASERVE_DEVICE bool ArriveLast() const {
    auto* const is_last = reinterpret_cast<int*>(ptx::SharedMemory() + kWarps * kWarpBytes);
    ptx::FenceMemory();
    ptx::SyncBlock();
    if (thread == 0) {
      int32_t* const arrived =
          args.num_arrived + int64_t{split.tile} * args.attend.num_heads + head;
      *is_last = ptx::AtomicAdd(arrived, 1) == split.num_splits - 1 ? 1 : 0;
      if (*is_last != 0) *arrived = 0;
    }
    ptx::SyncBlock();
    ptx::FenceMemory();
    return *is_last != 0;
  }

  EVASERVE_DEVICE void Run() const {
    Softmax softmax;
    float out[kDimTiles][4] = {};
    Accumulate(softmax, out);
    ptx::SyncBlock();  // the stages are free
    auto* const results = reinterpret_cast<float*>(ptx::SharedMemory());
    StoreRows(softmax, out, results + warp * kPartialFloats);
    ptx::SyncBlock();
    if (split.num_splits == 1) {
      JoinAll(results, kPartialFloats, kWarps,
              [&](const Joined& joined, int row, int dim) { Write(joined, row, dim); });
    } else {
      float* const partial = Partial(split.first_partial + split.index);
      JoinAll(results, kPartialFloats, kWarps, [&](const Joined& joined, int row, int dim) {
        float* const to = partial + row * kRowFloats;
        to[dim] = joined.value;
        if (dim == 0) {
          to[kHeadDim] = joined.max;
          to[kHeadDim + 1] = joined.sum;
        }
      });
      if (ArriveLast()) {
        JoinAll(Partial(split.first_partial), int64_t{args.attend.num_heads} * kPartialFloats,
                split.num_splits,
                [&](const Joined& joined, int row, int dim) { Write(joined, row, dim); });
      }
    }
    ptx::SyncBlock();  // the results are read
  }
};

template <DType kType, int kHeadDim>
EVASERVE_KERNEL((NarrowAttend<kType, kHeadDim>::kThreads), 2)
AttendNarrowKernel(const EVASERVE_GRID_CONSTANT NarrowAttendArgs args) {
  using Kernel = NarrowAttend<kType, kHeadDim>;
  const int num_work = *args.num_splits * args.attend.num_heads;
  for (int w = ptx::BlockIndex(); w < num_work; w += ptx::NumBlocks()) {
    const CudaSplit& split = args.splits[w / args.attend.num_heads];
    const CudaTile tile = args.attend.tiles[split.tile];
    const CudaSequence& sequence = args.attend.sequences[tile.sequence];
    const int left = sequence.num_queries - tile.row_begin;
    const Kernel kernel{args,
                        split,
                        sequence,
                        tile.row_begin,
                        left < Kernel::kRows ? left : Kernel::kRows,
                        w % args.attend.num_heads};
    kernel.Run();
  }
}

}  // namespace evaserve
