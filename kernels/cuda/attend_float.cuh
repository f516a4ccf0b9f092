#pragma once

// Attention over float32 pages, for any number of queries: correct, not fast. A warp takes a query
// and 32 slots a step: first every lane makes the logit of one slot, then it adds up some
// dimensions of their values. A query's result does not depend, to the bit, on what else is in the
// batch.

#include "kernels/cuda/attend_args.h"
#include "kernels/cuda/vectors.h"

namespace evaserve {

template <int kHeadDim>
struct FloatAttend {
  using Image = FloatPageImage<kHeadDim>;
  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kRows = kWarps;
  static constexpr int kSlots = 32;
  static constexpr int kWarpFloats = kHeadDim + kSlots;  // a query, and weights
  static constexpr int kSharedBytes = kWarps * kWarpFloats * 4;
  static constexpr float kHidden = -1e30f;
  static constexpr int kLaneDims = kHeadDim / 32;  // lane, lane + 32, ...

  struct Softmax {
    float max = kHidden;
    float sum = 0.f;  // of the lane's slots
  };

  const CudaAttendArgs& args;
  const CudaSequence& sequence;
  const int row;  // of the sequence's queries
  const int head;
  const int lane = ptx::ThreadIndex() % 32;
  float* const query =
      reinterpret_cast<float*>(ptx::SharedMemory()) + ptx::ThreadIndex() / 32 * kWarpFloats;
  float* const weights = query + kHeadDim;

  EVASERVE_DEVICE const char* Keys(const CudaSlotBlock& block) const {
    return args.pool + args.pages[block.page] * args.page_bytes + int64_t{head} * 2 * Image::kBytes;
  }

  EVASERVE_DEVICE void LoadQuery(int64_t token) const {
    const float* const q =
        static_cast<const float*>(args.q) + token * args.q_stride + int64_t{head} * kHeadDim;
    EVASERVE_UNROLL
    for (int i = 0; i < kLaneDims; ++i) query[i * 32 + lane] = q[i * 32 + lane];
    ptx::SyncWarp();
  }

  // Of the lane's slot, not yet scaled.
  EVASERVE_DEVICE float Logit(const CudaSlotBlock& block) const {
    const auto* const q = reinterpret_cast<const Floats4*>(query);
    const auto* const key =
        reinterpret_cast<const Floats4*>(Keys(block) + Image::Offset(block.begin + lane, 0));
    float sum[4] = {};
    for (int i = 0; i < kHeadDim / 4; ++i) {
      const Floats4 a = q[i], b = key[i];
      EVASERVE_UNROLL
      for (int j = 0; j < 4; ++j) sum[j] = ptx::Fma(a.at[j], b.at[j], sum[j]);
    }
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
  }

  // Stores the weight of the lane's slot; what is in `out` moves to the new maximum. If nothing has
  // been seen yet, weights are 1 and count for nothing as soon as something is.
  EVASERVE_DEVICE void Weigh(float logit, Softmax& softmax, float (&out)[kLaneDims]) const {
    float max = fmaxf(softmax.max, logit);
    EVASERVE_UNROLL
    for (int step = 1; step < 32; step *= 2) max = fmaxf(max, ptx::ShuffleXor(max, step));
    const float correction = ptx::Exp2((softmax.max - max) * args.scale_log2);
    const float weight = ptx::Exp2((logit - max) * args.scale_log2);
    weights[lane] = weight;
    softmax.max = max;
    softmax.sum = ptx::Fma(softmax.sum, correction, weight);
    EVASERVE_UNROLL
    for (int i = 0; i < kLaneDims; ++i) out[i] *= correction;
  }

  EVASERVE_DEVICE void AddValues(const CudaSlotBlock& block, uint32_t visible,
                                 float (&out)[kLaneDims]) const {
    const char* const values = Keys(block) + Image::kBytes;
    for (int slot = 0; slot < kSlots; ++slot) {
      if ((visible >> slot & 1) == 0) continue;  // may be NaN
      const auto* const value =
          reinterpret_cast<const float*>(values + Image::Offset(block.begin + slot, lane));
      EVASERVE_UNROLL
      for (int i = 0; i < kLaneDims; ++i) out[i] = ptx::Fma(weights[slot], value[i * 32], out[i]);
    }
  }

  EVASERVE_DEVICE void Write(const Softmax& softmax, int64_t token,
                             const float (&out)[kLaneDims]) const {
    float sum = softmax.sum;
    EVASERVE_UNROLL
    for (int step = 1; step < 32; step *= 2) sum += ptx::ShuffleXor(sum, step);
    float* const to =
        static_cast<float*>(args.out) + token * args.out_stride + int64_t{head} * kHeadDim + lane;
    EVASERVE_UNROLL
    for (int i = 0; i < kLaneDims; ++i) to[i * 32] = out[i] / sum;
    if (args.lse != nullptr && lane == 0) {
      args.lse[token * args.num_heads + head] =
          (softmax.max * args.scale_log2 + ptx::Log2(sum)) * 0.693147180559945309f;
    }
  }

  EVASERVE_DEVICE void Run() const {
    const int64_t token = sequence.query_begin + row;
    LoadQuery(token);
    const SlotBlockWalk<kSlots> walk(sequence, row, 1);
    float out[kLaneDims] = {};
    Softmax softmax;
    for (int i = 0; i < walk.num_blocks(); ++i) {
      const CudaSlotBlock block = walk.At(i);
      const uint32_t visible = VisibleSlots(args, sequence, block, row, /*row=*/0, /*word=*/0);
      const bool is_visible = (visible >> lane & 1) != 0;
      Weigh(is_visible ? Logit(block) : kHidden, softmax, out);
      ptx::SyncWarp();
      AddValues(block, visible, out);
      ptx::SyncWarp();  // the weights are read
    }
    Write(softmax, token, out);
  }
};

// One block per tile and head, the heads of a tile next to each other.
template <int kHeadDim>
EVASERVE_KERNEL(FloatAttend<kHeadDim>::kThreads, 2)
AttendFloatKernel(const EVASERVE_GRID_CONSTANT CudaAttendArgs args) {
  const CudaTile tile = args.tiles[ptx::BlockIndex() / args.num_heads];
  const CudaSequence& sequence = args.sequences[tile.sequence];
  const int row = tile.row_begin + ptx::ThreadIndex() / 32;
  if (row >= sequence.num_queries) return;
  const FloatAttend<kHeadDim> kernel{args, sequence, row, ptx::BlockIndex() % args.num_heads};
  kernel.Run();
}

}  // namespace evaserve
