#pragma once

// What one thread loads or stores at once.

#include "kernels/cuda/ptx.h"

namespace evaserve {

struct alignas(16) Floats4 {
  float at[4];
};
struct alignas(8) Halves4 {
  uint32_t pair[2];
};
struct alignas(16) Halves8 {
  uint32_t pair[4];
};

template <DType kType>
EVASERVE_DEVICE Floats4 ToFloats(Halves4 x) {
  return {{ptx::LowHalf<kType>(x.pair[0]), ptx::HighHalf<kType>(x.pair[0]),
           ptx::LowHalf<kType>(x.pair[1]), ptx::HighHalf<kType>(x.pair[1])}};
}
template <DType kType>
EVASERVE_DEVICE Halves4 ToHalves(const Floats4& x) {
  return {{ptx::PackHalves<kType>(x.at[0], x.at[1]), ptx::PackHalves<kType>(x.at[2], x.at[3])}};
}

}  // namespace evaserve
