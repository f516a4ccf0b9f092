#pragma once

#include "kernels/cpu/isa/vector.h"

namespace evaserve {
namespace {

void RmsNorm(const float* x, const float* weight, float* y, int size, float eps) {
  Vec sum = {};
  for (int i = 0; i < size; i += kLanes) {
    const Vec v = LoadPartial(x + i, size - i);
    sum = Fma(v, v, sum);
  }
  const float mean = ReduceAdd(sum) / static_cast<float>(size);
  const Vec inverse = Broadcast(1.f / __builtin_sqrtf(mean + eps));
  for (int i = 0; i < size; i += kLanes) {
    const Vec v = LoadPartial(x + i, size - i) * inverse;
    StorePartial(y + i, v * LoadPartial(weight + i, size - i), size - i);
  }
}

void SwiGlu(const float* gate, const float* up, float* y, int size) {
  const Vec one = Broadcast(1.f);
  const Vec minus_log2e = Broadcast(-1.44269504f);
  const Vec limit = Broadcast(126.f);
  for (int i = 0; i < size; i += kLanes) {
    const Vec g = LoadPartial(gate + i, size - i);
    const Vec x = g * minus_log2e;
    const Vec bounded = -Max(-limit, -Max(x, -limit));
    const Vec silu = g / (one + Exp2<false>(bounded));
    StorePartial(y + i, silu * LoadPartial(up + i, size - i), size - i);
  }
}

}  // namespace
}  // namespace evaserve
