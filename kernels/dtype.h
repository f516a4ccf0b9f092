#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string_view>

namespace evaserve {

// Element type of stored tensors: weights, keys, values. Everything computed between two stored
// tensors is float32 (docs/numerics.md).
enum class DType : uint8_t { kFloat32, kBFloat16, kFloat16 };

constexpr int SizeOf(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

constexpr std::string_view Name(DType dtype) {
  return dtype == DType::kFloat32 ? "float32" : dtype == DType::kBFloat16 ? "bfloat16" : "float16";
}

inline std::optional<DType> DTypeFromName(std::string_view name) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    if (Name(dtype) == name) return dtype;
  }
  return std::nullopt;
}

// The upper half of a float32.
struct BFloat16 {
  uint16_t bits = 0;
};

inline float ToFloat(BFloat16 value) { return std::bit_cast<float>(uint32_t{value.bits} << 16); }

// Rounds to nearest, ties to even; a NaN stays a NaN.
inline BFloat16 ToBFloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  // By bits, not isnan(): loops over this are vectorized.
  const bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
  const uint32_t quiet = (bits >> 16) | 0x40, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return {static_cast<uint16_t>(is_nan ? quiet : rounded)};
}

// IEEE 754 binary16.
struct Float16 {
  uint16_t bits = 0;
};

inline float ToFloat(Float16 value) {
  const uint32_t sign = uint32_t{value.bits & 0x8000u} << 16;
  const int exponent = (value.bits >> 10) & 0x1f;
  const uint32_t fraction = value.bits & 0x3ff;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
  const float size = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                   : std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
  return sign != 0 ? -size : size;
}

// Rounds to nearest, ties to even; a NaN stays a NaN.
inline Float16 ToFloat16(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return {static_cast<uint16_t>(sign | 0x7e00)};
  const float size = std::fabs(value);
  if (size >= 65520.f) return {static_cast<uint16_t>(sign | 0x7c00)};
  if (size < std::ldexp(1.f, -14)) {  // fixed point
    return {
        static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(std::ldexp(size, 24))))};
  }
  const uint32_t bits = std::bit_cast<uint32_t>(size) - (uint32_t{112} << 23);
  return {static_cast<uint16_t>(sign | ((bits + 0xfff + ((bits >> 13) & 1)) >> 13))};
}

// Element `index` of an array of `dtype`.
inline float LoadElement(const void* array, DType dtype, int64_t index) {
  if (dtype == DType::kFloat32) return static_cast<const float*>(array)[index];
  if (dtype == DType::kBFloat16) return ToFloat(static_cast<const BFloat16*>(array)[index]);
  return ToFloat(static_cast<const Float16*>(array)[index]);
}

inline void StoreElement(void* array, DType dtype, int64_t index, float value) {
  if (dtype == DType::kFloat32) {
    static_cast<float*>(array)[index] = value;
  } else if (dtype == DType::kBFloat16) {
    static_cast<BFloat16*>(array)[index] = ToBFloat16(value);
  } else {
    static_cast<Float16*>(array)[index] = ToFloat16(value);
  }
}

}  // namespace evaserve
