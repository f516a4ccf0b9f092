#pragma once

// The 16-bit types of tensors on the device. All arithmetic is float32.

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/dtype.h"

#if defined(__CUDACC__)
#define EVASERVE_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define EVASERVE_HOST_DEVICE inline
#endif

namespace evaserve {

enum class HalfType : uint8_t { kBFloat16, kFloat16 };

// On the host. Both round to nearest even; a NaN stays a NaN.
template <HalfType kType>
uint16_t HalfFromFloat(float value);
template <HalfType kType>
float FloatFromHalf(uint16_t bits);

template <>
inline float FloatFromHalf<HalfType::kBFloat16>(uint16_t bits) {
  return ToFloat(BFloat16{bits});
}

template <>
inline uint16_t HalfFromFloat<HalfType::kBFloat16>(float value) {
  return ToBFloat16(value).bits;
}

template <>
inline float FloatFromHalf<HalfType::kFloat16>(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000u} << 16;
  const int exponent = (bits >> 10) & 0x1f;
  const uint32_t fraction = bits & 0x3ff;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
  const float size = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                   : std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
  return sign != 0 ? -size : size;
}

template <>
inline uint16_t HalfFromFloat<HalfType::kFloat16>(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return sign | 0x7e00;
  const float size = std::fabs(value);
  if (size >= 65520.f) return sign | 0x7c00;
  if (size < std::ldexp(1.f, -14)) {  // fixed point
    return sign | static_cast<uint16_t>(std::nearbyint(std::ldexp(size, 24)));
  }
  const uint32_t bits = std::bit_cast<uint32_t>(size) - (uint32_t{112} << 23);
  return sign | static_cast<uint16_t>((bits + 0xfff + ((bits >> 13) & 1)) >> 13);
}

}  // namespace evaserve
