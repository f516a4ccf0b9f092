#pragma once

// Means and weighted sums of the rows of a chunk. Lanes walk over dimensions.

#include <cstdint>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/isa/matmul.h"
#include "kernels/cpu/isa/summarize_chunk.h"
#include "kernels/cpu/isa/vector.h"

namespace evaserve {
namespace {

// to = factor * sum of weights[j] * the row of tokens[j]; null weights are all 1.
template <bool kWeighted>
EVASERVE_INLINE void SumRows(const LandmarkChunk& args, const float* rows, const float* weights,
                             float factor, float* to) {
  for (int begin = 0; begin < args.head_dim; begin += kTileWidth) {
    DispatchVecs(
        args.head_dim - begin, [&](auto vecs) __attribute__((always_inline)) {
          constexpr int kVecs = decltype(vecs)::value;
          Vec sum[kVecs];
          for (int n = 0; n < kVecs; ++n) sum[n] = Vec{};
          for (int j = 0; j < args.num_tokens; ++j) {
            const float* row = rows + args.tokens[j] * args.stride;
            const Vec weight = Broadcast(kWeighted ? weights[j] : 1.f);
            for (int n = 0; n < kVecs; ++n) {
              const int d = begin + n * kLanes;
              const Vec v = LoadPartial(row + d, args.head_dim - d);
              sum[n] = kWeighted ? Fma(weight, v, sum[n]) : sum[n] + v;
            }
          }
          for (int n = 0; n < kVecs; ++n) {
            const int d = begin + n * kLanes;
            StorePartial(to + d, sum[n] * Broadcast(factor), args.head_dim - d);
          }
        });
  }
}

void SumLandmark(const LandmarkChunk& args, const float* rows, float factor, float* sum) {
  SumRows<false>(args, rows, nullptr, factor, sum);
}

// mu . k - |k|^2 / 2 = (mu - k / 2) . k, lane by lane.
EVASERVE_INLINE Vec LandmarkLogit(const LandmarkChunk& args, const float* mu, const float* k) {
  const Vec minus_half = Broadcast(-0.5f);
  Vec sum = {};
  for (int d = 0; d < args.head_dim; d += kLanes) {
    const Vec x = LoadPartial(k + d, args.head_dim - d);
    sum = Fma(Fma(x, minus_half, LoadPartial(mu + d, args.head_dim - d)), x, sum);
  }
  return sum;
}

void LandmarkValue(const LandmarkChunk& args, const float* mu, float* weights, float* beta) {
  const int padded = (args.num_tokens + kLanes - 1) / kLanes * kLanes;
  const Vec scale = Broadcast(args.scale * 1.44269504f);
  for (int begin = 0; begin < padded; begin += kLanes) {
    Vec sums[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      const int j = begin + i < args.num_tokens ? begin + i : args.num_tokens - 1;
      sums[i] = LandmarkLogit(args, mu, args.k + args.tokens[j] * args.stride);
    }
    Store(weights + begin, ReduceAddEach(sums) * scale);
  }
  if (padded > 0) Softmax(weights, args.num_tokens, padded);
  SumRows<true>(args, args.v, weights, 1.f, beta);
}

}  // namespace
}  // namespace evaserve
