#pragma once

// Means and weighted sums of the rows of a chunk. Lanes walk over dimensions.

#include <cstdint>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/isa/summarize_chunk.h"
#include "kernels/cpu/isa/vector.h"

namespace evaserve {
namespace {

// Dimensions [d, d + kVecs * kLanes) of the sum below; those beyond head_dim do not exist unless
// the vectors are whole.
template <bool kWeighted, int kVecs, bool kWhole>
EVASERVE_INLINE void SumDimensions(const LandmarkChunk& args, const float* rows,
                                   const float* weights, float factor, int d, float* to) {
  Vec sum[kVecs];
  for (int n = 0; n < kVecs; ++n) sum[n] = Vec{};
  for (int j = 0; j < args.num_tokens; ++j) {
    const float* row = rows + args.tokens[j] * args.stride + d;
    for (int n = 0; n < kVecs; ++n) {
      const Vec v = kWhole ? Load(row + n * kLanes) : LoadPartial(row, args.head_dim - d);
      sum[n] = kWeighted ? Fma(Broadcast(weights[j]), v, sum[n]) : sum[n] + v;
    }
  }
  for (int n = 0; n < kVecs; ++n) {
    const Vec scaled = sum[n] * Broadcast(factor);
    if constexpr (kWhole) {
      Store(to + d + n * kLanes, scaled);
    } else {
      StorePartial(to + d, scaled, args.head_dim - d);
    }
  }
}

// to = factor * sum of weights[j] * the row of tokens[j]; weights that are not read are all 1.
template <bool kWeighted>
EVASERVE_INLINE void SumRows(const LandmarkChunk& args, const float* rows, const float* weights,
                             float factor, float* to) {
  int d = 0;
  for (; d + 4 * kLanes <= args.head_dim; d += 4 * kLanes) {
    SumDimensions<kWeighted, 4, true>(args, rows, weights, factor, d, to);
  }
  for (; d + kLanes <= args.head_dim; d += kLanes) {
    SumDimensions<kWeighted, 1, true>(args, rows, weights, factor, d, to);
  }
  if (d < args.head_dim) SumDimensions<kWeighted, 1, false>(args, rows, weights, factor, d, to);
}

void SumLandmark(const LandmarkChunk& args, const float* rows, float factor, float* sum) {
  SumRows<false>(args, rows, nullptr, factor, sum);
}

// mu . k - |k|^2 / 2 = (mu - k / 2) . k, lane by lane.
EVASERVE_INLINE Vec LandmarkLogit(const LandmarkChunk& args, const float* mu, const float* k) {
  const Vec minus_half = Broadcast(-0.5f);
  Vec sum = {};
  int d = 0;
  for (; d + kLanes <= args.head_dim; d += kLanes) {
    const Vec x = Load(k + d);
    sum = Fma(Fma(x, minus_half, Load(mu + d)), x, sum);
  }
  if (d == args.head_dim) return sum;
  const Vec x = LoadPartial(k + d, args.head_dim - d);
  return Fma(Fma(x, minus_half, LoadPartial(mu + d, args.head_dim - d)), x, sum);
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
