#pragma once

// Elements of tensors as their bits, which are equal or not for a NaN too.

#include <bit>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/half.h"

namespace evaserve {

template <DType kType>
using Bits = std::conditional_t<kType == DType::kFloat32, uint32_t, uint16_t>;

template <DType kType>
constexpr Bits<kType> kPoison = static_cast<Bits<kType>>(~0u);  // NaN in every type

template <DType kType>
Bits<kType> BitsFromFloat(float value) {
  if constexpr (kType == DType::kFloat32) {
    return std::bit_cast<uint32_t>(value);
  } else {
    return HalfFromFloat<kType>(value);
  }
}
template <DType kType>
float FloatFromBits(Bits<kType> bits) {
  if constexpr (kType == DType::kFloat32) {
    return std::bit_cast<float>(bits);
  } else {
    return FloatFromHalf<kType>(bits);
  }
}

}  // namespace evaserve
