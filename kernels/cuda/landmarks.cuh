#pragma once

// The landmarks of the paper's EVA, see kernels/landmarks.h. A block takes up to eight chunks of
// one head: a warp makes the means of a chunk at a time, then each thread some dimensions of both
// maps for all chunks, so that a map is read once a block; then a warp normalises, and weighs the
// values of a chunk as it walks over the members again. A row is spread over the lanes by eight
// dimensions each; the rest of a warp takes the next rows. Sums are float32.

#include "kernels/adaptive_norm.h"
#include "kernels/cuda/vectors.h"
#include "kernels/cuda/window_args.h"

namespace evaserve {

template <DType kType, int kHeadDim>
struct Landmarks {
  using Value = Element<kType>;
  using Values8 = Elements8<kType>;
  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kChunks = kCudaChunkGroup;
  static constexpr int kLanes = kHeadDim / 8;  // of a row
  static constexpr int kRows = 32 / kLanes;    // at once
  // Means of queries and of keys, and both mapped: [2, kChunks, kHeadDim] each.
  static constexpr int kSharedFloats = 2 * 2 * kChunks * kHeadDim;
  static constexpr int kSharedBytes = kSharedFloats * 4;

  struct Row {
    float at[8];
  };
  // A softmax over rows and the sum that it weighs. Logits are in base 2.
  struct Sum {
    float max = -1e30f;
    float weights = 0.f;
    Row values = {};
  };

  const LandmarksArgs& args;
  const CudaRegionItem& item;
  const CudaChunkGroup& group;
  const int head;
  const int warp = ptx::ThreadIndex() / 32, lane = ptx::ThreadIndex() % 32;
  const int first_row = lane / kLanes;
  const int dim = lane % kLanes * 8;
  const bool is_active = dim < args.head_dim;
  float* const means = reinterpret_cast<float*>(ptx::SharedMemory());
  float* const mapped = means + kSharedFloats / 2;

  // Of queries (0) or keys (1).
  EVASERVE_DEVICE static int At(int which, int chunk) {
    return (which * kChunks + chunk) * kHeadDim;
  }

  // Zeros of a place outside, and in lanes that have no dimensions.
  EVASERVE_DEVICE Row Load(const void* rows, int chunk, int member, bool& is_there) const {
    const int token = member < group.num_members
                          ? args.tables[group.members + int64_t{chunk} * group.num_members + member]
                          : -1;
    is_there = token >= 0;
    Row row = {};
    if (!is_there || !is_active) return row;
    const auto* const from = reinterpret_cast<const Values8*>(
        static_cast<const Value*>(rows) + (item.key_begin + token) * args.stride +
        int64_t{head} * args.head_dim + dim);
    const Values8 values = *from;
    EVASERVE_UNROLL
    for (int i = 0; i < 8; ++i) row.at[i] = ToFloat<kType>(values.part[i / 4], i % 4);
    return row;
  }

  EVASERVE_DEVICE void StoreMean(const void* rows, int which, int chunk) const {
    Row sum = {};
    for (int i = first_row; i < group.num_members; i += kRows) {
      bool is_there;
      const Row row = Load(rows, chunk, i, is_there);
      EVASERVE_UNROLL
      for (int d = 0; d < 8; ++d) sum.at[d] += row.at[d];
    }
    EVASERVE_UNROLL
    for (int d = 0; d < 8; ++d) {
      EVASERVE_UNROLL
      for (int step = kLanes; step < 32; step *= 2) {
        sum.at[d] += ptx::ShuffleXor(sum.at[d], step);
      }
    }
    if (first_row != 0) return;
    EVASERVE_UNROLL
    for (int d = 0; d < 8; ++d) means[At(which, chunk) + dim + d] = sum.at[d] / group.num_members;
  }

  // One dimension of the map of all chunks.
  EVASERVE_DEVICE void MapDimension(const CudaMap& map, int which, int out) const {
    float sum[kChunks];
    EVASERVE_UNROLL
    for (int c = 0; c < kChunks; ++c) sum[c] = map.bias[out];
    for (int in = 0; in < args.head_dim; ++in) {
      const float weight = map.weight[in * args.head_dim + out];
      EVASERVE_UNROLL
      for (int c = 0; c < kChunks; ++c) {
        sum[c] = ptx::Fma(means[At(which, c) + in], weight, sum[c]);
      }
    }
    EVASERVE_UNROLL
    for (int c = 0; c < kChunks; ++c) mapped[At(which, c) + out] = sum[c];
  }

  EVASERVE_DEVICE void MapMeans() const {
    const int first = args.map_q.weight == nullptr ? args.head_dim : 0;
    for (int i = first + ptx::ThreadIndex(); i < 2 * args.head_dim; i += kThreads) {
      if (i < args.head_dim) {
        MapDimension(args.map_q, 0, i);
      } else {
        MapDimension(args.map_k, 1, i - args.head_dim);
      }
    }
  }

  // Of the lanes that share a row.
  EVASERVE_DEVICE static float SumOfRow(float x) {
    EVASERVE_UNROLL
    for (int step = 1; step < kLanes; step *= 2) x += ptx::ShuffleXor(x, step);
    return x;
  }

  // The mapped mean, normalised if the map has a norm.
  EVASERVE_DEVICE Row Normalised(const CudaMap& map, int which, int chunk) const {
    Row row = {};
    float sum = 0.f, squares = 0.f;
    if (is_active) {
      EVASERVE_UNROLL
      for (int i = 0; i < 8; ++i) row.at[i] = mapped[At(which, chunk) + dim + i];
    }
    if (map.norm_weight == nullptr) return row;
    EVASERVE_UNROLL
    for (int i = 0; i < 8; ++i) sum += row.at[i];
    const float mean = SumOfRow(sum) / args.head_dim;
    EVASERVE_UNROLL
    for (int i = 0; i < 8; ++i) {
      row.at[i] -= mean;
      if (is_active) squares = ptx::Fma(row.at[i], row.at[i], squares);
    }
    const float factor = ptx::ReciprocalSqrt(SumOfRow(squares) / args.head_dim + kAdaptiveNormEps);
    if (!is_active) return {};
    EVASERVE_UNROLL
    for (int i = 0; i < 8; ++i) {
      row.at[i] = ptx::Fma(row.at[i] * factor, map.norm_weight[dim + i], map.norm_bias[dim + i]);
    }
    return row;
  }

  EVASERVE_DEVICE static void Add(const Row& row, float logit, bool is_there, Sum& sum) {
    const float max = is_there ? fmaxf(sum.max, logit) : sum.max;
    const float correction = ptx::Exp2(sum.max - max);
    const float weight = is_there ? ptx::Exp2(logit - max) : 0.f;
    sum.max = max;
    sum.weights = ptx::Fma(sum.weights, correction, weight);
    EVASERVE_UNROLL
    for (int i = 0; i < 8; ++i) {
      sum.values.at[i] = ptx::Fma(weight, row.at[i], sum.values.at[i] * correction);
    }
  }

  // Joins the rows that the warp has taken side by side. A chunk without tokens has the value 0.
  EVASERVE_DEVICE static Row Join(Sum& sum) {
    EVASERVE_UNROLL
    for (int step = kLanes; step < 32; step *= 2) {
      const float max = fmaxf(sum.max, ptx::ShuffleXor(sum.max, step));
      const float factor = ptx::Exp2(sum.max - max);
      sum.max = max;
      sum.weights *= factor;
      sum.weights += ptx::ShuffleXor(sum.weights, step);
      EVASERVE_UNROLL
      for (int i = 0; i < 8; ++i) {
        sum.values.at[i] *= factor;
        sum.values.at[i] += ptx::ShuffleXor(sum.values.at[i], step);
      }
    }
    const float factor = sum.weights > 0.f ? 1.f / sum.weights : 0.f;
    EVASERVE_UNROLL
    for (int i = 0; i < 8; ++i) sum.values.at[i] *= factor;
    return sum.values;
  }

  EVASERVE_DEVICE void Store(const Row& row, int chunk, void* landmarks) const {
    if (first_row != 0 || !is_active) return;
    const int64_t place = item.landmark_begin * args.num_heads +
                          int64_t{head} * item.num_landmarks + group.landmark + chunk;
    auto* const to =
        reinterpret_cast<Values8*>(static_cast<Value*>(landmarks) + place * args.head_dim + dim);
    Values8 values;
    EVASERVE_UNROLL
    for (int i = 0; i < 2; ++i) {
      values.part[i] = FromFloats<kType>(
          {{row.at[4 * i], row.at[4 * i + 1], row.at[4 * i + 2], row.at[4 * i + 3]}});
    }
    *to = values;
  }

  EVASERVE_DEVICE void Finish(int chunk) const {
    constexpr float kLog2E = 1.44269504088896341f;
    const Row k_bar = Normalised(args.map_k, 1, chunk);
    Store(k_bar, chunk, args.k_bar);
    Row mu = {};
    if (args.map_q.weight != nullptr) {
      const Row q_bar = Normalised(args.map_q, 0, chunk);
      EVASERVE_UNROLL
      for (int i = 0; i < 8; ++i) mu.at[i] = args.mu_scale * (q_bar.at[i] + k_bar.at[i]);
    }
    Sum sum;
    for (int i = 0; i < group.num_members; i += kRows) {
      bool is_there;
      const Row k = Load(args.k, chunk, i + first_row, is_there);
      const Row v = Load(args.v, chunk, i + first_row, is_there);
      float dot = 0.f;  // mu . k - |k|^2 / 2
      EVASERVE_UNROLL
      for (int d = 0; d < 8; ++d) dot = ptx::Fma(mu.at[d] - 0.5f * k.at[d], k.at[d], dot);
      Add(v, SumOfRow(dot) * args.scale * kLog2E, is_there, sum);
    }
    Store(Join(sum), chunk, args.beta);
  }

  EVASERVE_DEVICE void Run() const {
    for (int chunk = warp; chunk < group.num_chunks; chunk += kWarps) {
      if (args.map_q.weight != nullptr) StoreMean(args.q, 0, chunk);
      StoreMean(args.k, 1, chunk);
    }
    ptx::SyncBlock();
    MapMeans();
    ptx::SyncBlock();
    for (int chunk = warp; chunk < group.num_chunks; chunk += kWarps) Finish(chunk);
  }
};

// A block per group of chunks and head, the heads of a group next to each other.
template <DType kType, int kHeadDim>
EVASERVE_KERNEL((Landmarks<kType, kHeadDim>::kThreads), 4)
LandmarksKernel(const EVASERVE_GRID_CONSTANT LandmarksArgs args) {
  const CudaChunkGroup& group = args.groups[ptx::BlockIndex() / args.num_heads];
  const Landmarks<kType, kHeadDim> kernel{args, args.items[group.item], group,
                                          ptx::BlockIndex() % args.num_heads};
  kernel.Run();
}

}  // namespace evaserve
