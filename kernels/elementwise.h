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

// y = (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias for each row, in float32, with the
// variance over all of the row. y may be x.
struct LayerNormParams {
  const float* x = nullptr;  // [rows, size], stride elements apart
  int64_t x_stride = 0;
  const float* weight = nullptr;  // [size]
  const float* bias = nullptr;    // [size]
  float* y = nullptr;
  int64_t y_stride = 0;
  int rows = 0;
  int size = 0;
  float eps = 0.f;
};
void LayerNormCpu(const LayerNormParams& params, WorkerPool& pool);

// A row of x is [gate | up], each `size` long. y may be x.
struct GluParams {
  const float* x = nullptr;  // [rows, 2 * size], stride elements apart
  int64_t x_stride = 0;
  float* y = nullptr;  // [rows, size]
  int64_t y_stride = 0;
  int rows = 0;
  int size = 0;
};
// y = silu(gate) * up
void SwiGluCpu(const GluParams& params, WorkerPool& pool);

// y = gelu(gate) * up
void GeGluCpu(const GluParams& params, WorkerPool& pool);

// y = f(x), element by element. y may be x.
struct ActivationParams {
  const float* x = nullptr;  // [rows, size], stride elements apart
  int64_t x_stride = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
  int rows = 0;
  int size = 0;
};

// x (1 + erf(x / sqrt(2))) / 2, not its approximation by tanh; within 1e-6 max(1, |x|).
void GeluCpu(const ActivationParams& params, WorkerPool& pool);

// max(x, 0)
void ReluCpu(const ActivationParams& params, WorkerPool& pool);

}  // namespace evaserve
