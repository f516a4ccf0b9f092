#pragma once

// Writing slots: rotation, storage and the summaries of chunks.

#include <cstdint>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/isa/vector.h"

namespace evaserve {
namespace {

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

inline uint32_t BFloat16Bits(float x) { return RoundToBFloat16(Broadcast(x))[0]; }

inline void StoreKey(const float* key, int slot, int head_dim, bool is_bfloat16, std::byte* keys) {
  if (is_bfloat16) {
    uint32_t* to = reinterpret_cast<uint32_t*>(keys) + slot;
    for (int d = 0; d < head_dim; d += 2) {
      to[d / 2 * kTileColumns] = BFloat16Bits(key[d]) | (BFloat16Bits(key[d + 1]) << 16);
    }
  } else {
    float* to = reinterpret_cast<float*>(keys) + slot;
    for (int d = 0; d < head_dim; ++d) to[d * kTileColumns] = key[d];
  }
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

constexpr int kMaxHeadDim = 1024;

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
