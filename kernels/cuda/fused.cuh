#pragma once

// The small operations between the matrix products of a decoder layer, fused so that a decoding
// step is not bound by launches.

#include "kernels/cuda/fused_args.h"
#include "kernels/cuda/vectors.h"

namespace evaserve {

inline constexpr int kFusedThreads = 256;

// The sum of all threads' x, in a fixed order. `shared` has room for a float per warp.
EVASERVE_DEVICE float SumOfBlock(float x, float* shared) {
  EVASERVE_UNROLL
  for (int step = 1; step < 32; step *= 2) x += ptx::ShuffleXor(x, step);
  if (ptx::ThreadIndex() % 32 == 0) shared[ptx::ThreadIndex() / 32] = x;
  ptx::SyncBlock();
  float sum = 0.f;
  EVASERVE_UNROLL
  for (int warp = 0; warp < kFusedThreads / 32; ++warp) sum += shared[warp];
  return sum;
}

// The elements of `tensor` from the given one on, eight at a time.
template <DType kType>
EVASERVE_DEVICE const Elements8<kType>* RowOf(const void* tensor, int64_t element) {
  return reinterpret_cast<const Elements8<kType>*>(static_cast<const Element<kType>*>(tensor) +
                                                   element);
}
template <DType kType>
EVASERVE_DEVICE Elements8<kType>* RowOf(void* tensor, int64_t element) {
  return reinterpret_cast<Elements8<kType>*>(static_cast<Element<kType>*>(tensor) + element);
}

// A block per row, kFusedThreads * 4 bytes / 32 of shared memory.
template <DType kType>
EVASERVE_KERNEL(kFusedThreads, 1)
AddRmsNormKernel(const EVASERVE_GRID_CONSTANT AddRmsNormArgs args) {
  const int64_t row = ptx::BlockIndex();
  auto* const residual = reinterpret_cast<Floats4*>(args.residual + row * args.residual_stride);
  const auto* const x = RowOf<kType>(args.x, row * args.x_stride);
  auto* const y = RowOf<kType>(args.y, row * args.y_stride);
  const auto* const weight = reinterpret_cast<const Floats4*>(args.weight);

  float squares = 0.f;
  for (int i = ptx::ThreadIndex(); i < args.size / 8; i += kFusedThreads) {
    const Elements8<kType> delta = args.x != nullptr ? x[i] : Elements8<kType>{};
    EVASERVE_UNROLL
    for (int part = 0; part < 2; ++part) {
      const Floats4 added = ToFloats<kType>(delta.part[part]);
      Floats4 sum = residual[2 * i + part];
      EVASERVE_UNROLL
      for (int j = 0; j < 4; ++j) sum.at[j] += added.at[j];
      residual[2 * i + part] = sum;
      EVASERVE_UNROLL
      for (int j = 0; j < 4; ++j) squares += sum.at[j] * sum.at[j];
    }
  }
  const float mean = SumOfBlock(squares, reinterpret_cast<float*>(ptx::SharedMemory())) / args.size;
  const float factor = ptx::ReciprocalSqrt(mean + args.eps);
  for (int i = ptx::ThreadIndex(); i < args.size / 8; i += kFusedThreads) {
    Elements8<kType> result;
    EVASERVE_UNROLL
    for (int part = 0; part < 2; ++part) {
      Floats4 sum = residual[2 * i + part];
      const Floats4 w = weight[2 * i + part];
      EVASERVE_UNROLL
      for (int j = 0; j < 4; ++j) sum.at[j] = sum.at[j] * factor * w.at[j];
      result.part[part] = FromFloats<kType>(sum);
    }
    y[i] = result;
  }
}

EVASERVE_DEVICE float SwiGlu(float gate, float up) {
  constexpr float kLog2E = 1.44269504088896341f;
  return gate / (1.f + ptx::Exp2(-gate * kLog2E)) * up;
}

// Eight elements a thread.
template <DType kType>
EVASERVE_KERNEL(kFusedThreads, 1)
SwiGluKernel(const EVASERVE_GRID_CONSTANT SwiGluArgs args) {
  const int64_t index = int64_t{ptx::BlockIndex()} * kFusedThreads + ptx::ThreadIndex();
  const int64_t per_row = args.size / 8, row = index / per_row, i = index % per_row;
  if (row >= args.rows) return;
  const auto* const x = RowOf<kType>(args.x, row * args.x_stride);
  const Elements8<kType> gates = x[i], ups = x[per_row + i];
  Elements8<kType> result;
  EVASERVE_UNROLL
  for (int part = 0; part < 2; ++part) {
    Floats4 y;
    EVASERVE_UNROLL
    for (int j = 0; j < 4; ++j) {
      y.at[j] = SwiGlu(ToFloat<kType>(gates.part[part], j), ToFloat<kType>(ups.part[part], j));
    }
    result.part[part] = FromFloats<kType>(y);
  }
  RowOf<kType>(args.y, row * args.y_stride)[i] = result;
}

}  // namespace evaserve
