#pragma once

// Attention for many queries on sm_90a: prefill and large trees. A block is one producer, whose
// thread issues bulk copies, and two consumers (warpgroups) of 64 queries each; it takes tiles of
// 128 queries of one head until none is left.
//
// A consumer has Q K(j) and P(j-1) V(j-1) in flight together, and makes the weights P(j) while the
// second one runs. The consumers take turns at issuing (named barriers), so that one makes weights
// while the other multiplies.
//
// Slots that were never written may hold NaN. Among the keys it does not matter, their logits are
// replaced; rows of values are taken from `zeros` instead.

#include "kernels/cuda/attend_args.h"
#include "kernels/cuda/ptx.h"

namespace evaserve {

struct WideAttendArgs {
  CudaAttendArgs attend;
  ptx::TensorMap q;             // attend.q as a matrix of tokens, boxes of 128 rows
  const void* zeros = nullptr;  // PageImage::kBlockBytes of them
};

template <int kHeadDim>
struct WideShape {
  using Image = PageImage<kHeadDim>;
  static constexpr int kConsumers = 2;
  static constexpr int kThreads = (1 + kConsumers) * 128;
  static constexpr int kConsumerThreads = kConsumers * 128;
  static constexpr int kRows = kConsumers * 64;
  static constexpr int kStages = 2;  // see BufferPosition
  static constexpr int kBarriers = (1 + 2 * kStages) * 2;
  static constexpr int kSharedBytes = (1 + 2 * kStages) * Image::kBytes + kBarriers * 8;
  static_assert(kRows == kCudaPageSlots, "queries lie in shared memory as a page does");
};

// Where things are in shared memory. A stage's barrier `full` counts bytes, `empty` the consumers.
template <int kHeadDim>
struct WideShared {
  using Shape = WideShape<kHeadDim>;
  static constexpr int kImageBytes = Shape::Image::kBytes;

  ptx::SharedAddress base = ptx::AddressOf(ptx::SharedMemory());

  EVASERVE_DEVICE ptx::SharedAddress queries() const { return base; }
  EVASERVE_DEVICE ptx::SharedAddress keys(int stage) const {
    return base + (1 + stage) * kImageBytes;
  }
  EVASERVE_DEVICE ptx::SharedAddress values(int stage) const {
    return base + (1 + Shape::kStages + stage) * kImageBytes;
  }
  EVASERVE_DEVICE ptx::SharedAddress barrier(int i) const {
    return base + (1 + 2 * Shape::kStages) * kImageBytes + i * 8;
  }
  EVASERVE_DEVICE ptx::SharedAddress queries_full() const { return barrier(0); }
  EVASERVE_DEVICE ptx::SharedAddress queries_empty() const { return barrier(1); }
  EVASERVE_DEVICE ptx::SharedAddress keys_full(int stage) const { return barrier(2 + stage * 4); }
  EVASERVE_DEVICE ptx::SharedAddress keys_empty(int stage) const { return barrier(3 + stage * 4); }
  EVASERVE_DEVICE ptx::SharedAddress values_full(int stage) const { return barrier(4 + stage * 4); }
  EVASERVE_DEVICE ptx::SharedAddress values_empty(int stage) const {
    return barrier(5 + stage * 4);
  }

  EVASERVE_DEVICE void InitBarriers() const {
    for (int i = 0; i < Shape::kBarriers; ++i) {
      ptx::InitBarrier(barrier(i), i % 2 == 0 ? 1 : Shape::kConsumerThreads);
    }
    ptx::FenceBarrierInit();
  }
};

// One of two buffers, and the parity of the round in which it is used.
struct BufferPosition {
  int stage = 0;
  int parity = 0;

  EVASERVE_DEVICE BufferPosition Next() const { return {stage ^ 1, parity ^ stage}; }
};

// One tile of one head.
struct WideWork {
  const CudaSequence* sequence;
  int row_begin, num_rows, head;

  EVASERVE_DEVICE static WideWork At(const CudaAttendArgs& args, int index, int max_rows) {
    const CudaTile tile = args.tiles[index / args.num_heads];
    const CudaSequence* sequence = args.sequences + tile.sequence;
    const int left = sequence->num_queries - tile.row_begin;
    return {sequence, tile.row_begin, left < max_rows ? left : max_rows, index % args.num_heads};
  }
  EVASERVE_DEVICE SlotBlockWalk<kCudaPageSlots> walk() const {
    return {*sequence, row_begin, num_rows};
  }
};

template <int kHeadDim>
struct WideProducer {
  using Shape = WideShape<kHeadDim>;
  using Image = typename Shape::Image;

  const WideAttendArgs& args;
  const WideShared<kHeadDim> shared;

  EVASERVE_DEVICE void LoadQueries(const WideWork& work) const {
    ptx::ArriveExpecting(shared.queries_full(), Image::kBytes);
    for (int i = 0; i < Image::kNumBlocks; ++i) {
      ptx::CopyBox(shared.queries() + i * Image::kBlockBytes, &args.q,
                   work.head * kHeadDim + i * Image::kBlockColumns,
                   work.sequence->query_begin + work.row_begin, shared.queries_full());
    }
  }
  EVASERVE_DEVICE void LoadValues(const char* from, int num_written, int stage) const {
    const ptx::SharedAddress to = shared.values(stage), full = shared.values_full(stage);
    if (num_written == kCudaPageSlots) return ptx::CopyBulk(to, from, Image::kBytes, full);
    const int bytes = num_written * Image::kRowBytes;
    for (int i = 0; i < Image::kNumBlocks; ++i) {
      const int block = i * Image::kBlockBytes;
      ptx::CopyBulk(to + block, from + block, bytes, full);
      ptx::CopyBulk(to + block + bytes, args.zeros, Image::kBlockBytes - bytes, full);
    }
  }

  EVASERVE_DEVICE void Run() const {
    BufferPosition at{0, 1};  // all buffers are empty
    int queries_parity = 1;
    const int num_work = args.attend.num_tiles * args.attend.num_heads;
    for (int w = ptx::BlockIndex(); w < num_work; w += ptx::NumBlocks()) {
      const WideWork work = WideWork::At(args.attend, w, Shape::kRows);
      const auto walk = work.walk();
      ptx::Wait(shared.queries_empty(), queries_parity);
      LoadQueries(work);
      queries_parity ^= 1;
      for (int i = 0; i < walk.num_blocks(); ++i, at = at.Next()) {
        const CudaSlotBlock block = walk.At(i);
        const char* const keys = args.attend.pool +
                                 args.attend.pages[block.page] * args.attend.page_bytes +
                                 int64_t{work.head} * 2 * Image::kBytes;
        ptx::Wait(shared.keys_empty(at.stage), at.parity);
        ptx::ArriveExpecting(shared.keys_full(at.stage), Image::kBytes);
        ptx::CopyBulk(shared.keys(at.stage), keys, Image::kBytes, shared.keys_full(at.stage));
        ptx::Wait(shared.values_empty(at.stage), at.parity);
        ptx::ArriveExpecting(shared.values_full(at.stage), Image::kBytes);
        LoadValues(keys + Image::kBytes, block.written, at.stage);
      }
    }
  }
};

template <DType kType, int kHeadDim>
struct WideConsumer {
  using Shape = WideShape<kHeadDim>;
  using Image = typename Shape::Image;
  static constexpr float kHidden = -1e30f;
  static constexpr int kLogits = kCudaPageSlots / 2, kSums = kHeadDim / 2;
  static constexpr ptx::Swizzle kSwizzle =
      Image::kRowBytes == 128 ? ptx::Swizzle::k128Bytes : ptx::Swizzle::k64Bytes;
  static constexpr int kGroupBytes = 8 * Image::kRowBytes;
  static constexpr int kStepsPerBlock = Image::kBlockColumns / 16;

  const CudaAttendArgs& args;
  const WideShared<kHeadDim> shared;
  const int index;  // of the consumer
  const int thread = ptx::ThreadIndex() % 128, lane = thread % 32;
  const int first_row = index * 64 + thread / 32 * 16 + lane / 4;  // and that plus 8

  WideWork work{};
  BufferPosition at{};
  float s[kLogits], out[kSums];
  uint32_t weights[kLogits / 2];
  float max[2], sum[2], correction[2];

  EVASERVE_DEVICE void WaitForTurn() const { ptx::SyncNamed(1 + index, Shape::kConsumerThreads); }
  EVASERVE_DEVICE void PassTurn() const { ptx::ArriveNamed(2 - index, Shape::kConsumerThreads); }

  EVASERVE_DEVICE void IssueKeys(int stage) {
    const ptx::Descriptor a = ptx::MatrixDescriptor(
        shared.queries() + index * 64 * Image::kRowBytes, kSwizzle, 16, kGroupBytes);
    const ptx::Descriptor b = ptx::MatrixDescriptor(shared.keys(stage), kSwizzle, 16, kGroupBytes);
    EVASERVE_UNROLL
    for (int k = 0; k < kHeadDim / 16; ++k) {
      const uint32_t offset = k / kStepsPerBlock * Image::kBlockBytes + k % kStepsPerBlock * 32;
      ptx::WgmmaShared<kType, kCudaPageSlots>(s, ptx::Advance(a, offset), ptx::Advance(b, offset),
                                              k != 0);
    }
    ptx::CommitWgmmas();
  }
  EVASERVE_DEVICE void IssueValues(int stage, bool accumulate) {
    const ptx::Descriptor b =
        ptx::MatrixDescriptor(shared.values(stage), kSwizzle, Image::kBlockBytes, kGroupBytes);
    EVASERVE_UNROLL
    for (int k = 0; k < kCudaPageSlots / 16; ++k) {
      ptx::WgmmaRegisters<kType, kHeadDim>(
          out, weights + 4 * k, ptx::Advance(b, k * 2 * kGroupBytes), accumulate || k != 0);
    }
    ptx::CommitWgmmas();
  }

  EVASERVE_DEVICE void Hide(const CudaSlotBlock& block) {
    EVASERVE_UNROLL
    for (int r = 0; r < 2; ++r) {
      EVASERVE_UNROLL
      for (int word = 0; word < kCudaPageSlots / 32; ++word) {
        const uint32_t visible =
            VisibleSlots(args, *work.sequence, block, work.row_begin, first_row + 8 * r, word) >>
            lane % 4 * 2;
        EVASERVE_UNROLL
        for (int j = 0; j < 4; ++j) {
          float* const logits = s + word * 16 + j * 4 + 2 * r;
          if ((visible >> (8 * j) & 1) == 0) logits[0] = kHidden;
          if ((visible >> (8 * j + 1) & 1) == 0) logits[1] = kHidden;
        }
      }
    }
  }

  // Logits become weights in float32; `correction` is what the earlier ones must be scaled by.
  EVASERVE_DEVICE void Weigh() {
    EVASERVE_UNROLL
    for (int r = 0; r < 2; ++r) {
      float top = max[r];
      EVASERVE_UNROLL
      for (int i = 2 * r; i < kLogits; i += 4) top = fmaxf(top, fmaxf(s[i], s[i + 1]));
      top = fmaxf(top, ptx::ShuffleXor(top, 1));
      top = fmaxf(top, ptx::ShuffleXor(top, 2));
      correction[r] = ptx::Exp2((max[r] - top) * args.scale_log2);
      max[r] = top;
      // A row that has seen nothing yet gets weights of 0: of equal hugenesses Fma leaves a rest.
      const float base = fmaxf(top, 0.5f * kHidden) * args.scale_log2;
      float total = 0.f;
      EVASERVE_UNROLL
      for (int i = 2 * r; i < kLogits; i += 4) {
        s[i] = ptx::Exp2(ptx::Fma(s[i], args.scale_log2, -base));
        s[i + 1] = ptx::Exp2(ptx::Fma(s[i + 1], args.scale_log2, -base));
        total += s[i] + s[i + 1];
      }
      sum[r] = sum[r] * correction[r] + total;
    }
  }
  EVASERVE_DEVICE void RoundWeights() {
    EVASERVE_UNROLL
    for (int i = 0; i < kLogits / 2; ++i) {
      weights[i] = ptx::PackHalves<kType>(s[2 * i], s[2 * i + 1]);
    }
  }

  // The logits of the first block.
  EVASERVE_DEVICE void Begin(const CudaSlotBlock& block) {
    EVASERVE_UNROLL
    for (int r = 0; r < 2; ++r) {
      max[r] = kHidden;
      sum[r] = 0.f;
    }
    ptx::Wait(shared.keys_full(at.stage), at.parity);
    ptx::FenceWgmma();
    IssueKeys(at.stage);
    ptx::WaitForWgmmas<0>();
    ptx::Pin(s);
    ptx::Arrive(shared.keys_empty(at.stage));
    Hide(block);
    Weigh();
    RoundWeights();
    ptx::Pin(weights);
  }

  // The logits of a block, and what the block before it adds to the result.
  template <bool kMasked>
  EVASERVE_DEVICE void Step(const CudaSlotBlock& block, bool accumulate) {
    const BufferPosition next = at.Next();
    ptx::Wait(shared.keys_full(next.stage), next.parity);
    WaitForTurn();
    ptx::FenceWgmma();
    IssueKeys(next.stage);
    ptx::Wait(shared.values_full(at.stage), at.parity);
    ptx::FenceWgmma();
    IssueValues(at.stage, accumulate);
    PassTurn();
    ptx::WaitForWgmmas<1>();
    ptx::Pin(s);
    ptx::Arrive(shared.keys_empty(next.stage));
    if (kMasked) Hide(block);
    Weigh();
    ptx::Pin(s);
    ptx::Pin(correction);
    // Keeps the compiler from waiting for the sums before it has made the weights.
    ptx::WaitAgain(shared.values_full(at.stage), at.parity);
    ptx::WaitForWgmmas<0>();
    ptx::Pin(out);
    ptx::Arrive(shared.values_empty(at.stage));
    EVASERVE_UNROLL
    for (int i = 0; i < kSums; ++i) out[i] *= correction[i / 2 % 2];
    RoundWeights();
    ptx::Pin(weights);
    at = next;
  }

  EVASERVE_DEVICE void End(bool accumulate) {
    ptx::Arrive(shared.queries_empty());
    ptx::Wait(shared.values_full(at.stage), at.parity);
    ptx::FenceWgmma();
    IssueValues(at.stage, accumulate);
    ptx::WaitForWgmmas<0>();
    ptx::Pin(out);
    ptx::Arrive(shared.values_empty(at.stage));
    at = at.Next();
  }

  EVASERVE_DEVICE void Write() {
    EVASERVE_UNROLL
    for (int r = 0; r < 2; ++r) {
      float total = sum[r];
      total += ptx::ShuffleXor(total, 1);
      total += ptx::ShuffleXor(total, 2);
      const int row = first_row + 8 * r;
      if (row >= work.num_rows) continue;
      const float inverse = 1.f / total;
      const int64_t token = work.sequence->query_begin + work.row_begin + row;
      auto* to = static_cast<uint16_t*>(args.out) + token * args.out_stride +
                 int64_t{work.head} * kHeadDim + lane % 4 * 2;
      EVASERVE_UNROLL
      for (int d = 0; d < kHeadDim / 8; ++d) {
        *reinterpret_cast<uint32_t*>(to + d * 8) =
            ptx::PackHalves<kType>(out[4 * d + 2 * r] * inverse, out[4 * d + 2 * r + 1] * inverse);
      }
      if (args.lse != nullptr && lane % 4 == 0) {
        args.lse[token * args.num_heads + work.head] =
            (max[r] * args.scale_log2 + ptx::Log2(total)) * 0.693147180559945309f;
      }
    }
  }

  EVASERVE_DEVICE void Run() {
    if (index == 1) PassTurn();
    int queries_parity = 0;
    const int num_work = args.num_tiles * args.num_heads;
    for (int w = ptx::BlockIndex(); w < num_work; w += ptx::NumBlocks()) {
      work = WideWork::At(args, w, Shape::kRows);
      const auto walk = work.walk();
      const int num_blocks = walk.num_blocks(), num_masked = walk.num_masked();
      ptx::Wait(shared.queries_full(), queries_parity);
      queries_parity ^= 1;
      Begin(walk.At(0));
      int i = 1;
      for (; i < num_masked; ++i) Step</*kMasked=*/true>(walk.At(i), i > 1);
      for (; i < num_blocks; ++i) Step</*kMasked=*/false>({}, i > 1);
      End(num_blocks > 1);
      Write();
    }
  }
};

template <DType kType, int kHeadDim>
EVASERVE_KERNEL(WideShape<kHeadDim>::kThreads, 1)
AttendWideKernel(const EVASERVE_GRID_CONSTANT WideAttendArgs args) {
  const WideShared<kHeadDim> shared;
  if (ptx::ThreadIndex() == 0) shared.InitBarriers();
  ptx::SyncBlock();
  const int warpgroup = ptx::UniformInWarp(ptx::ThreadIndex() / 128);
  if (warpgroup == 0) {
    ptx::ShrinkRegisters<40>();
    if (ptx::ThreadIndex() == 0) WideProducer<kHeadDim>{args, shared}.Run();
  } else {
    ptx::GrowRegisters<232>();
    WideConsumer<kType, kHeadDim> consumer{args.attend, shared, warpgroup - 1};
    consumer.Run();
  }
}

}  // namespace evaserve
