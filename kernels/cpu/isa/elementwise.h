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

void LayerNorm(const float* x, const float* weight, const float* bias, float* y, int size,
               float eps) {
  const float count = static_cast<float>(size);
  Vec sum = {};
  for (int i = 0; i < size; i += kLanes) sum = sum + LoadPartial(x + i, size - i);
  const Vec mean = Broadcast(ReduceAdd(sum) / count);
  Vec squares = {};
  for (int i = 0; i < size; i += kLanes) {
    const Vec v = KeepFirst(LoadPartial(x + i, size - i) - mean, size - i, Vec{});
    squares = Fma(v, v, squares);
  }
  const Vec inverse = Broadcast(1.f / __builtin_sqrtf(ReduceAdd(squares) / count + eps));
  for (int i = 0; i < size; i += kLanes) {
    const int left = size - i;
    const Vec v = (LoadPartial(x + i, left) - mean) * inverse;
    StorePartial(y + i, Fma(v, LoadPartial(weight + i, left), LoadPartial(bias + i, left)), left);
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

// x times the normal distribution function at x. The tail beyond |x| is Abramowitz and Stegun's
// 7.1.26, erfc(z) = polynomial(1 / (1 + p z)) exp(-z^2), 1.5e-7 from it.
EVASERVE_INLINE Vec Gelu(Vec x) {
  const Vec size = Max(x, -x);
  // z = |x| / sqrt(2), and p of the book is divided by sqrt(2) with it.
  const Vec t = Broadcast(1.f) / Fma(size, Broadcast(0.231641888f), Broadcast(1.f));
  Vec p = Fma(t, Broadcast(1.061405429f), Broadcast(-1.453152027f));
  p = Fma(t, p, Broadcast(1.421413741f));
  p = Fma(t, p, Broadcast(-0.284496736f));
  p = Fma(t, p, Broadcast(0.254829592f));
  const Vec minus_half_log2e = Broadcast(-0.72134752f);
  const Vec power = Exp2<false>(Max(size * size * minus_half_log2e, Broadcast(-150.f)));
  const Vec tail = size * (Broadcast(0.5f) * (t * p) * power);
  return Max(Vec{}, x) - tail;
}

void Gelu(const float* x, float* y, int size) {
  for (int i = 0; i < size; i += kLanes) {
    StorePartial(y + i, Gelu(LoadPartial(x + i, size - i)), size - i);
  }
}

void GeGlu(const float* gate, const float* up, float* y, int size) {
  for (int i = 0; i < size; i += kLanes) {
    const Vec gelu = Gelu(LoadPartial(gate + i, size - i));
    StorePartial(y + i, gelu * LoadPartial(up + i, size - i), size - i);
  }
}

void Relu(const float* x, float* y, int size) {
  for (int i = 0; i < size; i += kLanes) {
    // In this order a NaN stays a NaN.
    StorePartial(y + i, Max(Vec{}, LoadPartial(x + i, size - i)), size - i);
  }
}

}  // namespace
}  // namespace evaserve
