#pragma once

// One vector register of the instruction set that this file is compiled for, and the few operations
// that differ between them. Everything is in an unnamed namespace: each instruction set has its own
// copy, and the linker cannot mix them up (see cpu_kernels.h).
//
// Products are fused or not as Fma says, never as the compiler likes (-ffp-contract=off): a row's
// result must not depend on the shape of the tile that it was computed in.

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define EVASERVE_INLINE inline __attribute__((always_inline))

namespace evaserve {
namespace {

#if defined(__AVX512BF16__)
constexpr int kVecBytes = 64;
constexpr int kTileRows = 6;  // 6 x 4 accumulators, 4 of B, 1 of A: 29 of 32 registers
constexpr int kTileVecs = 4;
#elif defined(__AVX2__)
constexpr int kVecBytes = 32;
constexpr int kTileRows = 6;  // 6 x 2 + 2 + 1: 15 of 16
constexpr int kTileVecs = 2;
#elif defined(__aarch64__)
constexpr int kVecBytes = 16;
constexpr int kTileRows = 6;  // as AVX-512
constexpr int kTileVecs = 4;
#else
constexpr int kVecBytes = 16;
constexpr int kTileRows = 6;  // as AVX2
constexpr int kTileVecs = 2;
#endif
constexpr int kLanes = kVecBytes / 4;

using Vec = float __attribute__((vector_size(kVecBytes)));
using VecInt = int32_t __attribute__((vector_size(kVecBytes)));
using VecUint = uint32_t __attribute__((vector_size(kVecBytes)));

EVASERVE_INLINE Vec Load(const void* p) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
EVASERVE_INLINE void Store(void* p, Vec v) { __builtin_memcpy(p, &v, sizeof v); }
EVASERVE_INLINE Vec Broadcast(float x) { return x - Vec{}; }
EVASERVE_INLINE VecInt BroadcastInt(int32_t x) { return x - VecInt{}; }
EVASERVE_INLINE Vec BroadcastUnit(const void* p) {
  float x;
  __builtin_memcpy(&x, p, sizeof x);
  return Broadcast(x);
}

// 0, 1, 2, ...
EVASERVE_INLINE VecInt Iota() {
  VecInt v;
  for (int i = 0; i < kLanes; ++i) v[i] = i;
  return v;
}

EVASERVE_INLINE Vec Select(VecInt mask, Vec a, Vec b) {
  return (Vec)((mask & (VecInt)a) | (~mask & (VecInt)b));
}

// The first `count` lanes of x, then those of other; count may be negative or exceed the lanes.
EVASERVE_INLINE Vec KeepFirst(Vec x, int count, Vec other) {
#if defined(__AVX512BF16__)
  const __mmask16 kept = _mm512_cmplt_epi32_mask((__m512i)Iota(), _mm512_set1_epi32(count));
  return _mm512_mask_blend_ps(kept, other, x);
#else
  return Select((VecInt)(Iota() < count), x, other);
#endif
}

#if defined(__AVX512BF16__)

EVASERVE_INLINE Vec Fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
EVASERVE_INLINE Vec Max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
EVASERVE_INLINE Vec Floor(Vec x) { return _mm512_roundscale_ps(x, 0x09); }
EVASERVE_INLINE Vec ScaleByPowerOfTwo(Vec x, Vec floor) { return _mm512_scalef_ps(x, floor); }
EVASERVE_INLINE Vec DotPairs(Vec a, Vec b, Vec acc) {
  return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b);
}
// The bfloat16 of a, then those of b.
EVASERVE_INLINE Vec ToBFloat16(Vec a, Vec b) { return (Vec)_mm512_cvtne2ps_pbh(b, a); }

#else

#if defined(__AVX2__)
EVASERVE_INLINE Vec Fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
EVASERVE_INLINE Vec Max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
EVASERVE_INLINE Vec Floor(Vec x) { return _mm256_floor_ps(x); }
#elif defined(__ARM_NEON) && defined(__aarch64__)
EVASERVE_INLINE Vec Fma(Vec a, Vec b, Vec c) {
  return (Vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
EVASERVE_INLINE Vec Max(Vec a, Vec b) { return (Vec)vmaxq_f32((float32x4_t)a, (float32x4_t)b); }
EVASERVE_INLINE Vec Floor(Vec x) { return (Vec)vrndmq_f32((float32x4_t)x); }
#else
EVASERVE_INLINE Vec Fma(Vec a, Vec b, Vec c) { return a * b + c; }
EVASERVE_INLINE Vec Max(Vec a, Vec b) { return Select(a > b, a, b); }
// Right where the result fits 22 bits, which is all that Exp2 asks.
EVASERVE_INLINE Vec Floor(Vec x) {
  const Vec magic = Broadcast(12582912.f);  // 1.5 * 2^23: the sum has no fraction bits left
  const Vec nearest = (x + magic) - magic;
  return nearest + (Vec)((VecInt)(nearest > x) & (VecInt)Broadcast(-1.f));
}
#endif

// For x in [1, 2]. Results below the smallest normal number become zero.
EVASERVE_INLINE Vec ScaleByPowerOfTwo(Vec x, Vec floor) {
  const VecInt is_normal = floor >= Broadcast(-126.f);
  const VecInt exponent = __builtin_convertvector(Max(floor, Broadcast(-126.f)), VecInt);
  return (Vec)(((VecInt)x + (exponent << 23)) & is_normal);
}
EVASERVE_INLINE Vec DotPairs(Vec a, Vec b, Vec acc) {
  const VecInt high = BroadcastInt(static_cast<int32_t>(0xffff0000));
  acc = Fma((Vec)((VecInt)a << 16), (Vec)((VecInt)b << 16), acc);
  return Fma((Vec)((VecInt)a & high), (Vec)((VecInt)b & high), acc);
}
// In the lower half of each lane, to nearest even; a NaN stays a NaN.
EVASERVE_INLINE VecUint RoundToBFloat16(Vec x) {
  const VecUint bits = (VecUint)x;
  const VecUint rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const VecUint is_nan = (VecUint)(x != x);
  return (is_nan & ((bits >> 16) | 0x40)) | (~is_nan & rounded);
}
EVASERVE_INLINE Vec ToBFloat16(Vec a, Vec b) {
  using Half = uint16_t __attribute__((vector_size(kVecBytes / 2)));
  const Half low = __builtin_convertvector(RoundToBFloat16(a), Half);
  const Half high = __builtin_convertvector(RoundToBFloat16(b), Half);
  Vec pairs;
  __builtin_memcpy(&pairs, &low, sizeof low);
  __builtin_memcpy(reinterpret_cast<char*>(&pairs) + sizeof low, &high, sizeof high);
  return pairs;
}

#endif

#if defined(__AVX512BF16__)
// Lane by lane the pair (low, high).
EVASERVE_INLINE Vec ZipBFloat16(Vec low, Vec high) {
  const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(high, low);
  const __m512i lane = (__m512i)Iota();
  // Words i and i + 16 become the two halves of lane i.
  const __m512i order =
      _mm512_or_si512(lane, _mm512_slli_epi32(_mm512_add_epi32(lane, _mm512_set1_epi32(16)), 16));
  return (Vec)_mm512_permutexvar_epi16(order, halves);
}
#else
EVASERVE_INLINE Vec ZipBFloat16(Vec low, Vec high) {
  return (Vec)(RoundToBFloat16(low) | (RoundToBFloat16(high) << 16));
}
#endif
EVASERVE_INLINE Vec LowBFloat16(Vec pairs) { return (Vec)((VecUint)pairs << 16); }
EVASERVE_INLINE Vec HighBFloat16(Vec pairs) { return (Vec)((VecUint)pairs & 0xffff0000u); }

// acc + a b for a float32 unit, acc + a.low b.low + a.high b.high for a pair of bfloat16.
template <bool kBf16>
EVASERVE_INLINE Vec MulAdd(Vec a, Vec b, Vec acc) {
  return kBf16 ? DotPairs(a, b, acc) : Fma(a, b, acc);
}

// Exchange<kStep, kSet> takes from two operands the lanes whose bit kStep is clear, or is set: the
// first operand's stay where that bit is clear in the result, the second's go where it is set.
#if defined(__AVX512BF16__)

EVASERVE_INLINE float ReduceAdd(Vec v) { return _mm512_reduce_add_ps(v); }
EVASERVE_INLINE float ReduceMax(Vec v) { return _mm512_reduce_max_ps(v); }
EVASERVE_INLINE bool AnyGreater(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0; }

template <int kStep, bool kSet>
EVASERVE_INLINE Vec Exchange(Vec a, Vec b) {
  const VecInt lane = Iota();
  const VecInt from_second = ((lane & kStep) != 0) & 16;
  const VecInt source = kSet ? lane | kStep : lane & ~kStep;
  return _mm512_permutex2var_ps(a, (__m512i)(source | from_second), b);
}

#else

EVASERVE_INLINE float ReduceAdd(Vec v) {
  float lanes[kLanes];
  Store(lanes, v);
  for (int n = kLanes / 2; n > 0; n /= 2) {
    for (int i = 0; i < n; ++i) lanes[i] += lanes[i + n];
  }
  return lanes[0];
}
EVASERVE_INLINE float ReduceMax(Vec v) {
  float lanes[kLanes];
  Store(lanes, v);
  for (int n = kLanes / 2; n > 0; n /= 2) {
    for (int i = 0; i < n; ++i) lanes[i] = lanes[i] > lanes[i + n] ? lanes[i] : lanes[i + n];
  }
  return lanes[0];
}
EVASERVE_INLINE bool AnyGreater(Vec a, Vec b) {
  const VecInt greater = (VecInt)(a > b);
  bool any = false;
  for (int i = 0; i < kLanes; ++i) any = any || greater[i] != 0;
  return any;
}
template <int kStep, bool kSet>
EVASERVE_INLINE Vec Exchange(Vec a, Vec b) {
#if defined(__AVX2__)
  if constexpr (kStep == 1 && !kSet)
    return __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14);
  if constexpr (kStep == 1 && kSet) return __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
  if constexpr (kStep == 2 && !kSet) return __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13);
  if constexpr (kStep == 2 && kSet)
    return __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
  if constexpr (kStep == 4 && !kSet) return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11);
  return __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
#else
  if constexpr (kStep == 1 && !kSet) return __builtin_shufflevector(a, b, 0, 4, 2, 6);
  if constexpr (kStep == 1 && kSet) return __builtin_shufflevector(a, b, 1, 5, 3, 7);
  if constexpr (kStep == 2 && !kSet) return __builtin_shufflevector(a, b, 0, 1, 4, 5);
  return __builtin_shufflevector(a, b, 2, 3, 6, 7);
#endif
}

#endif

template <int kStep>
EVASERVE_INLINE void ReduceAddStep(Vec (&v)[kLanes]) {
  for (int i = 0; i < kLanes / 2 / kStep; ++i) {
    const Vec a = v[2 * i], b = v[2 * i + 1];
    v[i] = Exchange<kStep, false>(a, b) + Exchange<kStep, true>(a, b);
  }
}

// Lane i is the sum of the lanes of v[i].
EVASERVE_INLINE Vec ReduceAddEach(Vec (&v)[kLanes]) {
  ReduceAddStep<1>(v);
  ReduceAddStep<2>(v);
  if constexpr (kLanes > 4) ReduceAddStep<4>(v);
  if constexpr (kLanes > 8) ReduceAddStep<8>(v);
  return v[0];
}

template <int kStep>
EVASERVE_INLINE void TransposeStep(Vec (&v)[kLanes]) {
  for (int i = 0; i < kLanes; i += 2 * kStep) {
    for (int j = i; j < i + kStep; ++j) {
      const Vec a = v[j], b = v[j + kStep];
      v[j] = Exchange<kStep, false>(a, b);
      v[j + kStep] = Exchange<kStep, true>(a, b);
    }
  }
}

// Lane j of v[i] becomes lane i of v[j].
EVASERVE_INLINE void Transpose(Vec (&v)[kLanes]) {
  TransposeStep<1>(v);
  TransposeStep<2>(v);
  if constexpr (kLanes > 4) TransposeStep<4>(v);
  if constexpr (kLanes > 8) TransposeStep<8>(v);
}

// 2^x for x in [-1e30, 127]; zero below the normal numbers. Minimax polynomials on [0, 1]: the
// relative error is 1e-7 (degree 6) or 1e-4 (degree 3, enough where the result becomes bfloat16).
template <bool kCoarse>
EVASERVE_INLINE Vec Exp2(Vec x) {
  const Vec floor = Floor(x);
  const Vec f = x - floor;
  Vec p;
  if constexpr (kCoarse) {
    p = Fma(f, Broadcast(0.0780245215f), Broadcast(0.226067156f));
    p = Fma(f, p, Broadcast(0.695833564f));
    p = Fma(f, p, Broadcast(0.999925196f));
  } else {
    p = Fma(f, Broadcast(0.000216129163f), Broadcast(0.00124678458f));
    p = Fma(f, p, Broadcast(0.00967545155f));
    p = Fma(f, p, Broadcast(0.0554852821f));
    p = Fma(f, p, Broadcast(0.240229309f));
    p = Fma(f, p, Broadcast(0.693147063f));
    p = Fma(f, p, Broadcast(1.f));
  }
  return ScaleByPowerOfTwo(p, floor);
}

EVASERVE_INLINE float Exp2(float x) { return Exp2<false>(Broadcast(x))[0]; }

// The first `size` lanes, zero elsewhere; size may exceed the lanes.
EVASERVE_INLINE Vec LoadPartial(const float* p, int size) {
  if (size >= kLanes) return Load(p);
  float lanes[kLanes] = {};
  for (int i = 0; i < size; ++i) lanes[i] = p[i];
  return Load(lanes);
}
EVASERVE_INLINE void StorePartial(float* p, Vec v, int size) {
  if (size >= kLanes) return Store(p, v);
  float lanes[kLanes];
  Store(lanes, v);
  for (int i = 0; i < size; ++i) p[i] = lanes[i];
}

}  // namespace
}  // namespace evaserve
