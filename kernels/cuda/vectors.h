#pragma once

// What one thread loads or stores at once.

#include <type_traits>

#include "kernels/cuda/ptx.h"

namespace evaserve {

struct alignas(16) Floats4 {
  float at[4];
};
struct alignas(8) Halves4 {
  uint32_t pair[2];
};

// Of a tensor.
template <DType kType>
using Element = std::conditional_t<kType == DType::kFloat32, float, uint16_t>;
template <DType kType>
using Elements4 = std::conditional_t<kType == DType::kFloat32, Floats4, Halves4>;
template <DType kType>
struct alignas(16) Elements8 {
  Elements4<kType> part[2];
};

// Of one of the four.
template <DType kType>
EVASERVE_DEVICE float ToFloat(Elements4<kType> x, int i) {
  if constexpr (kType == DType::kFloat32) {
    return x.at[i];
  } else {
    return i % 2 == 0 ? ptx::LowHalf<kType>(x.pair[i / 2]) : ptx::HighHalf<kType>(x.pair[i / 2]);
  }
}
template <DType kType>
EVASERVE_DEVICE Floats4 ToFloats(Elements4<kType> x) {
  return {{ToFloat<kType>(x, 0), ToFloat<kType>(x, 1), ToFloat<kType>(x, 2), ToFloat<kType>(x, 3)}};
}
template <DType kType>
EVASERVE_DEVICE Elements4<kType> FromFloats(const Floats4& x) {
  if constexpr (kType == DType::kFloat32) {
    return x;
  } else {
    return {{ptx::PackHalves<kType>(x.at[0], x.at[1]), ptx::PackHalves<kType>(x.at[2], x.at[3])}};
  }
}

}  // namespace evaserve
