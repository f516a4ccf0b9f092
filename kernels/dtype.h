#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <string_view>

namespace evaserve {

// Element type of stored tensors: weights, keys, values. Everything computed between two stored
// tensors is float32 (docs/numerics.md).
enum class DType : uint8_t { kFloat32, kBFloat16 };

constexpr int SizeOf(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

constexpr std::string_view Name(DType dtype) {
  return dtype == DType::kFloat32 ? "float32" : "bfloat16";
}

// The upper half of a float32.
struct BFloat16 {
  uint16_t bits = 0;
};

inline float ToFloat(BFloat16 value) { return std::bit_cast<float>(uint32_t{value.bits} << 16); }

// Rounds to nearest, ties to even; a NaN stays a NaN.
inline BFloat16 ToBFloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return {static_cast<uint16_t>((bits >> 16) | 0x40)};
  return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

}  // namespace evaserve
