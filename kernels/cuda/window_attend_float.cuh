#pragma once

// window_attend in float32: correct, not fast. A warp takes a query and 32 columns a step: first
// every lane makes the logit of one column, then it adds up some dimensions of their values.

#include "kernels/cuda/vectors.h"
#include "kernels/cuda/window_args.h"

namespace evaserve {

struct FloatWindowAttend {
  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kRows = kWarps;
  static constexpr int kColumns = 32;
  static constexpr int kMaxHeadDim = 128;
  static constexpr int kWarpFloats = kMaxHeadDim + kColumns;  // a query, and weights
  static constexpr int kSharedBytes = kWarps * kWarpFloats * 4;
  static constexpr float kHidden = -1e30f;
  static constexpr int kLaneDims = kMaxHeadDim / 32;  // lane, lane + 32, ...

  struct Softmax {
    float max = kHidden;
    float sum = 0.f;  // of the lane's columns
  };

  const WindowAttendArgs& args;
  const CudaRegionItem& item;
  const CudaWindowTile& tile;
  const int row;
  const int head;
  const int lane = ptx::ThreadIndex() % 32;
  float* const query =
      reinterpret_cast<float*>(ptx::SharedMemory()) + ptx::ThreadIndex() / 32 * kWarpFloats;
  float* const weights = query + kMaxHeadDim;

  EVASERVE_DEVICE void LoadQuery(int64_t token) const {
    const float* const q =
        static_cast<const float*>(args.q) + token * args.q_stride + int64_t{head} * args.head_dim;
    for (int d = lane; d < args.head_dim; d += 32) query[d] = q[d];
    ptx::SyncWarp();
  }

  EVASERVE_DEVICE static const float* At(const CudaColumn& column, const void* rows,
                                         const void* landmarks) {
    return static_cast<const float*>(column.is_landmark ? landmarks : rows) + column.element;
  }

  // Of a column that is seen, not yet scaled: so a bias is divided by the scale.
  EVASERVE_DEVICE float Logit(const CudaSeen& seen, int column) const {
    const auto* const q = reinterpret_cast<const Floats4*>(query);
    const auto* const key = reinterpret_cast<const Floats4*>(
        At(ColumnAt(args, item, tile, seen, head, column), args.k, args.k_bar));
    float sum[4] = {};
    for (int i = 0; i < args.head_dim / 4; ++i) {
      const Floats4 a = q[i], b = key[i];
      EVASERVE_UNROLL
      for (int j = 0; j < 4; ++j) sum[j] = ptx::Fma(a.at[j], b.at[j], sum[j]);
    }
    const float dot = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    if (args.bias == nullptr || column >= item.window_keys) return dot;
    const int64_t pair = head * args.bias_head_stride + int64_t{row} * item.window_keys + column;
    return ptx::Fma(args.bias[pair], 1.f / args.scale, dot);
  }

  // Stores the weight of the lane's column; what is in `out` moves to the new maximum. If nothing
  // has been seen yet, weights are 1 and count for nothing as soon as something is.
  EVASERVE_DEVICE void Weigh(float scale_log2, float logit, Softmax& softmax,
                             float (&out)[kLaneDims]) const {
    float max = fmaxf(softmax.max, logit);
    EVASERVE_UNROLL
    for (int step = 1; step < 32; step *= 2) max = fmaxf(max, ptx::ShuffleXor(max, step));
    const float correction = ptx::Exp2((softmax.max - max) * scale_log2);
    const float weight = ptx::Exp2((logit - max) * scale_log2);
    weights[lane] = weight;
    softmax.max = max;
    softmax.sum = ptx::Fma(softmax.sum, correction, weight);
    EVASERVE_UNROLL
    for (int i = 0; i < kLaneDims; ++i) out[i] *= correction;
  }

  EVASERVE_DEVICE void AddValues(const CudaSeen& seen, int first, uint32_t visible,
                                 float (&out)[kLaneDims]) const {
    for (int i = 0; i < kColumns; ++i) {
      if ((visible >> i & 1) == 0) continue;  // it lies nowhere
      const float* const value =
          At(ColumnAt(args, item, tile, seen, head, first + i), args.v, args.beta);
      EVASERVE_UNROLL
      for (int j = 0; j < kLaneDims; ++j) {
        const int d = j * 32 + lane;
        if (d < args.head_dim) out[j] = ptx::Fma(weights[i], value[d], out[j]);
      }
    }
  }

  EVASERVE_DEVICE void Write(float scale_log2, const Softmax& softmax, int64_t token,
                             const float (&out)[kLaneDims]) const {
    float sum = softmax.sum;
    EVASERVE_UNROLL
    for (int step = 1; step < 32; step *= 2) sum += ptx::ShuffleXor(sum, step);
    float* const to =
        static_cast<float*>(args.out) + token * args.out_stride + int64_t{head} * args.head_dim;
    EVASERVE_UNROLL
    for (int j = 0; j < kLaneDims; ++j) {
      const int d = j * 32 + lane;
      if (d < args.head_dim) to[d] = out[j] / sum;
    }
    if (args.lse != nullptr && lane == 0) {
      args.lse[token * args.num_heads + head] =
          (softmax.max * scale_log2 + ptx::Log2(sum)) * 0.693147180559945309f;
    }
  }

  EVASERVE_DEVICE void Run() const {
    const float scale_log2 = args.scale * 1.44269504088896341f;
    const int64_t token = item.query_begin + QueryAt(args, item, tile, row);
    LoadQuery(token);
    const CudaSeen seen = SeenAt(args, item, tile, row);
    const ColumnBlockWalk<kColumns> walk(item, seen);
    float out[kLaneDims] = {};
    Softmax softmax;
    for (int i = 0; i < walk.num_blocks(); ++i) {
      const int first = walk.At(i);
      const uint32_t visible = SeenColumns(args, item, tile, seen, first / 32);
      if (visible == 0) continue;
      const bool is_visible = (visible >> lane & 1) != 0;
      Weigh(scale_log2, is_visible ? Logit(seen, first + lane) : kHidden, softmax, out);
      ptx::SyncWarp();
      AddValues(seen, first, visible, out);
      ptx::SyncWarp();  // the weights are read
    }
    Write(scale_log2, softmax, token, out);
  }
};

// One block per tile of kRows rows and head, the heads of a tile next to each other.
EVASERVE_KERNEL(FloatWindowAttend::kThreads, 2)
WindowAttendFloatKernel(const EVASERVE_GRID_CONSTANT WindowAttendArgs args) {
  const CudaWindowTile& tile = args.tiles[ptx::BlockIndex() / args.num_heads];
  const CudaRegionItem& item = args.items[tile.item];
  const int row = tile.row_begin + ptx::ThreadIndex() / 32;
  if (QueryAt(args, item, tile, row) < 0) return;
  const FloatWindowAttend kernel{args, item, tile, row, ptx::BlockIndex() % args.num_heads};
  kernel.Run();
}

}  // namespace evaserve
