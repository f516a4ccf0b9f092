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

// A block per row, kFusedThreads * 4 bytes / 32 of shared memory.
template <DType kType>
EVASERVE_KERNEL(kFusedThreads, 1)
AddRmsNormKernel(const EVASERVE_GRID_CONSTANT AddRmsNormArgs args) {
  const int64_t row = ptx::BlockIndex();
  auto* const residual = reinterpret_cast<Floats4*>(args.residual + row * args.residual_stride);
  const auto* const x =
      reinterpret_cast<const Halves8*>(static_cast<const uint16_t*>(args.x) + row * args.x_stride);
  auto* const y = reinterpret_cast<Halves8*>(static_cast<uint16_t*>(args.y) + row * args.y_stride);
  const auto* const weight = reinterpret_cast<const Floats4*>(args.weight);

  float squares = 0.f;
  for (int i = ptx::ThreadIndex(); i < args.size / 8; i += kFusedThreads) {
    const Halves8 delta = args.x != nullptr ? x[i] : Halves8{};
    EVASERVE_UNROLL
    for (int half = 0; half < 2; ++half) {
      Floats4 sum = residual[2 * i + half];
      sum.at[0] += ptx::LowHalf<kType>(delta.pair[2 * half]);
      sum.at[1] += ptx::HighHalf<kType>(delta.pair[2 * half]);
      sum.at[2] += ptx::LowHalf<kType>(delta.pair[2 * half + 1]);
      sum.at[3] += ptx::HighHalf<kType>(delta.pair[2 * half + 1]);
      residual[2 * i + half] = sum;
      EVASERVE_UNROLL
      for (int j = 0; j < 4; ++j) squares += sum.at[j] * sum.at[j];
    }
  }
  const float mean = SumOfBlock(squares, reinterpret_cast<float*>(ptx::SharedMemory())) / args.size;
  const float factor = ptx::ReciprocalSqrt(mean + args.eps);
  for (int i = ptx::ThreadIndex(); i < args.size / 8; i += kFusedThreads) {
    Halves8 result;
    EVASERVE_UNROLL
    for (int half = 0; half < 2; ++half) {
      const Floats4 sum = residual[2 * i + half], w = weight[2 * i + half];
      result.pair[2 * half] =
          ptx::PackHalves<kType>(sum.at[0] * factor * w.at[0], sum.at[1] * factor * w.at[1]);
      result.pair[2 * half + 1] =
          ptx::PackHalves<kType>(sum.at[2] * factor * w.at[2], sum.at[3] * factor * w.at[3]);
    }
    y[i] = result;
  }
}

template <DType kType>
EVASERVE_DEVICE uint32_t SwiGluPair(uint32_t gate, uint32_t up) {
  constexpr float kLog2E = 1.44269504088896341f;
  const float low = ptx::LowHalf<kType>(gate), high = ptx::HighHalf<kType>(gate);
  return ptx::PackHalves<kType>(
      low / (1.f + ptx::Exp2(-low * kLog2E)) * ptx::LowHalf<kType>(up),
      high / (1.f + ptx::Exp2(-high * kLog2E)) * ptx::HighHalf<kType>(up));
}

// Eight elements a thread.
template <DType kType>
EVASERVE_KERNEL(kFusedThreads, 1)
SwiGluKernel(const EVASERVE_GRID_CONSTANT SwiGluArgs args) {
  const int64_t index = int64_t{ptx::BlockIndex()} * kFusedThreads + ptx::ThreadIndex();
  const int64_t per_row = args.size / 8, row = index / per_row, i = index % per_row;
  if (row >= args.rows) return;
  const auto* const gate =
      reinterpret_cast<const Halves8*>(static_cast<const uint16_t*>(args.x) + row * args.x_stride);
  const Halves8 a = gate[i], b = gate[per_row + i];
  Halves8 result;
  EVASERVE_UNROLL
  for (int j = 0; j < 4; ++j) result.pair[j] = SwiGluPair<kType>(a.pair[j], b.pair[j]);
  reinterpret_cast<Halves8*>(static_cast<uint16_t*>(args.y) + row * args.y_stride)[i] = result;
}

}  // namespace evaserve
