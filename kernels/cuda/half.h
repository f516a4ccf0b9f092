#pragma once

// The 16-bit types of tensors on the device. All arithmetic is float32.

#include <cstdint>

#include "kernels/dtype.h"

#if defined(__CUDACC__)
#define EVASERVE_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define EVASERVE_HOST_DEVICE inline
#endif

namespace evaserve {

// On the host. Both round to nearest even; a NaN stays a NaN.
template <DType kType>
uint16_t HalfFromFloat(float value) {
  if constexpr (kType == DType::kBFloat16) return ToBFloat16(value).bits;
  return ToFloat16(value).bits;
}
template <DType kType>
float FloatFromHalf(uint16_t bits) {
  if constexpr (kType == DType::kBFloat16) return ToFloat(BFloat16{bits});
  return ToFloat(Float16{bits});
}

}  // namespace evaserve
