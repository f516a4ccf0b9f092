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

// The units of a key's dimensions, one below the other in the page.
inline void StoreKey(const float* units, int num_units, int slot, std::byte* keys) {
  float* to = reinterpret_cast<float*>(keys) + slot;
  for (int i = 0; i < num_units; ++i) __builtin_memcpy(to + i * kTileColumns, units + i, 4);
}

// kLanes keys, `stride` floats apart, to as many slots.
inline void StoreKeys(const float* units, int64_t stride, int num_units, int slot,
                      std::byte* keys) {
  float* to = reinterpret_cast<float*>(keys) + slot;
  for (int begin = 0; begin < num_units; begin += kLanes) {
    Vec v[kLanes];
    for (int i = 0; i < kLanes; ++i) v[i] = Load(units + i * stride + begin);
    Transpose(v);
    const int count = num_units - begin < kLanes ? num_units - begin : kLanes;
    for (int i = 0; i < count; ++i) Store(to + (begin + i) * kTileColumns, v[i]);
  }
}

// Keeps the neighbour in the pair. Dimensions from head_dim on become zero.
template <bool kBf16>
void StoreValue(const float* value, int slot, int head_dim, int padded_head_dim,
                std::byte* values) {
  float* to = reinterpret_cast<float*>(values) + int64_t{slot / (kBf16 ? 2 : 1)} * padded_head_dim;
  for (int d = 0; d < padded_head_dim; d += kLanes) {
    const Vec v = d < head_dim ? LoadPartial(value + d, head_dim - d) : Vec{};
    if constexpr (kBf16) {
      const VecUint kept = (VecUint)Load(to + d) & (slot % 2 == 0 ? 0xffff0000u : 0xffffu);
      const Vec pair = slot % 2 == 0 ? ZipBFloat16(v, Vec{}) : ZipBFloat16(Vec{}, v);
      Store(to + d, (Vec)(kept | (VecUint)pair));
    } else {
      Store(to + d, v);
    }
  }
}

// The values of two slots that form a pair of bfloat16.
inline void StoreValuePair(const float* low, const float* high, int slot, int head_dim,
                           int padded_head_dim, std::byte* values) {
  float* to = reinterpret_cast<float*>(values) + int64_t{slot / 2} * padded_head_dim;
  for (int d = 0; d < padded_head_dim; d += kLanes) {
    const bool in_head = d < head_dim;
    Store(to + d, ZipBFloat16(in_head ? LoadPartial(low + d, head_dim - d) : Vec{},
                              in_head ? LoadPartial(high + d, head_dim - d) : Vec{}));
  }
}

template <bool kBf16>
void StoreValues(const StoreRows& args) {
  for (int i = 0; i < args.num_tokens; ++i) {
    const float* value = args.v + i * args.stride;
    const int slot = args.slot_begin + i;
    if (kBf16 && slot % 2 == 0 && i + 1 < args.num_tokens) {
      StoreValuePair(value, value + args.stride, slot, args.head_dim, args.padded_head_dim,
                     args.values);
      ++i;
    } else {
      StoreValue<kBf16>(value, slot, args.head_dim, args.padded_head_dim, args.values);
    }
  }
}

// The key of token i, rotated, as units.
template <bool kBf16>
EVASERVE_INLINE void RotateKey(const StoreRows& args, int i, float* units) {
  float rotated[kMaxTileHeadDim];
  float* to = kBf16 ? rotated : units;
  Rotate(args.k + i * args.stride, args.cos[i], args.sin[i], args.head_dim, to);
  if constexpr (kBf16) ToBFloat16Row(rotated, args.head_dim, units);
}

template <bool kBf16>
void StoreTokens(const StoreRows& args) {
  for (int i = 0; i < args.num_tokens; ++i) {
    float* q = args.q + i * args.stride;
    Rotate(q, args.cos[i], args.sin[i], args.head_dim, q);
  }
  StoreValues<kBf16>(args);

  const int num_units = kBf16 ? args.head_dim / 2 : args.head_dim;
  const int64_t stride = num_units + kLanes;  // room for whole vectors, and no power of two
  alignas(kVecBytes) float units[kLanes * (kMaxTileHeadDim + kLanes)];
  for (int i = 0; i < args.num_tokens;) {
    const int count = args.num_tokens - i < kLanes ? 1 : kLanes;
    for (int j = 0; j < count; ++j) RotateKey<kBf16>(args, i + j, units + j * stride);
    if (count == 1) {
      StoreKey(units, num_units, args.slot_begin + i, args.keys);
    } else {
      StoreKeys(units, stride, num_units, args.slot_begin + i, args.keys);
    }
    i += count;
  }
}

void StoreTokens(const StoreRows& args) {
  args.is_bfloat16 ? StoreTokens<true>(args) : StoreTokens<false>(args);
}

}  // namespace
}  // namespace evaserve
