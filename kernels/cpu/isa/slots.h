#pragma once

// Writing slots: rotation, storage and the summaries of chunks.

#include <cstdint>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/isa/vector.h"

namespace evaserve {
namespace {

// An odd size is padded with zero.
void ToBFloat16Row(const float* x, int size, void* pairs) {
  float* to = static_cast<float*>(pairs);
  for (int i = 0; i < size; i += 2 * kLanes) {
    const int left = size - i;
    const Vec a = LoadPartial(x + i, left);
    const Vec b = left > kLanes ? LoadPartial(x + i + kLanes, left - kLanes) : Vec{};
    StorePartial(to + i / 2, ToBFloat16(a, b), (left + 1) / 2);
  }
}

// rope(x) in the half-split layout; to may be x.
inline void Rotate(const float* x, const float* cos, const float* sin, int head_dim, float* to) {
  const int half = head_dim / 2;
  for (int d = 0; d < half; d += kLanes) {
    const int left = half - d;
    const Vec low = LoadPartial(x + d, left), high = LoadPartial(x + half + d, left);
    const Vec c = LoadPartial(cos + d, left), s = LoadPartial(sin + d, left);
    StorePartial(to + d, Fma(low, c, -(high * s)), left);
    StorePartial(to + half + d, Fma(high, c, low * s), left);
  }
}

constexpr int kMaxHeadDim = 1024;

inline void StoreKey(const float* key, int slot, int head_dim, bool is_bfloat16, std::byte* keys) {
  alignas(kVecBytes) float pairs[kMaxHeadDim / 2];
  if (is_bfloat16) ToBFloat16Row(key, head_dim, pairs);
  const float* units = is_bfloat16 ? pairs : key;
  const int num_units = is_bfloat16 ? head_dim / 2 : head_dim;
  float* to = reinterpret_cast<float*>(keys) + slot;
  for (int i = 0; i < num_units; ++i) __builtin_memcpy(to + i * kTileColumns, units + i, 4);
}

// Keeps the neighbour in the pair. Dimensions from head_dim on become zero.
inline void StoreValue(const float* value, int slot, int head_dim, int padded_head_dim,
                       bool is_bfloat16, std::byte* values) {
  const int row = is_bfloat16 ? slot / 2 : slot;
  float* to = reinterpret_cast<float*>(values) + int64_t{row} * padded_head_dim;
  for (int d = 0; d < padded_head_dim; d += kLanes) {
    const Vec v = d < head_dim ? LoadPartial(value + d, head_dim - d) : Vec{};
    if (!is_bfloat16) {
      Store(to + d, v);
      continue;
    }
    const VecUint old = (VecUint)Load(to + d);
    const VecUint bits = RoundToBFloat16(v);
    Store(to + d, slot % 2 == 0 ? (Vec)((old & 0xffff0000u) | bits)
                                : (Vec)((old & 0xffffu) | (bits << 16)));
  }
}

void StoreTokens(const StoreRows& args) {
  float key[kMaxHeadDim];
  for (int i = 0; i < args.num_tokens; ++i) {
    const float* cos = args.cos[i];
    const float* sin = args.sin[i];
    Rotate(args.q + i * args.stride, cos, sin, args.head_dim, args.q + i * args.stride);
    Rotate(args.k + i * args.stride, cos, sin, args.head_dim, key);
    const int slot = args.slot_begin + i;
    StoreKey(key, slot, args.head_dim, args.is_bfloat16, args.keys);
    StoreValue(args.v + i * args.stride, slot, args.head_dim, args.padded_head_dim,
               args.is_bfloat16, args.values);
  }
}

}  // namespace
}  // namespace evaserve
