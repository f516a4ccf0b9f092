#pragma once

#include <cstdint>

#include "kernels/worker_pool.h"

namespace evaserve {

// y = x / sqrt(mean(x^2) + eps) * weight for each row, in float32. y may be x.
struct RmsNormParams {
  const float* x = nullptr;  // [rows, size], stride elements apart
  int64_t x_stride = 0;
  const float* weight = nullptr;  // [size]; with the unit offset added, where a model has one
  float* y = nullptr;
  int64_t y_stride = 0;
  int rows = 0;
  int size = 0;
  float eps = 0.f;
};
void RmsNormCpu(const RmsNormParams& params, WorkerPool& pool);

// y = silu(gate) * up, where a row of x is [gate | up], each `size` long. y may be x.
struct SwiGluParams {
  const float* x = nullptr;  // [rows, 2 * size], stride elements apart
  int64_t x_stride = 0;
  float* y = nullptr;  // [rows, size]
  int64_t y_stride = 0;
  int rows = 0;
  int size = 0;
};
void SwiGluCpu(const SwiGluParams& params, WorkerPool& pool);

}  // namespace evaserve
