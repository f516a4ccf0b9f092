#pragma once

// What the kernels of fused.cuh get: plain structs, on the host and on the device.

#include <cstdint>

namespace evaserve {

// residual += x, y = residual / sqrt(mean(residual^2) + eps) * weight, for each row. Everything but
// x and y is float32.
struct AddRmsNormArgs {
  const void* x = nullptr;  // [rows, size]; null: nothing is added
  int64_t x_stride = 0;     // elements, as are the others; multiples of 8
  float* residual = nullptr;
  int64_t residual_stride = 0;
  const float* weight = nullptr;  // [size]; with the unit offset added, where a model has one
  void* y = nullptr;              // may be x
  int64_t y_stride = 0;
  int size = 0;  // a multiple of 8
  float eps = 0.f;
};

// y = silu(gate) * up, where a row of x is [gate | up], each `size` long.
struct SwiGluArgs {
  const void* x = nullptr;  // [rows, 2 * size]
  int64_t x_stride = 0;     // elements, a multiple of 8
  void* y = nullptr;        // [rows, size]
  int64_t y_stride = 0;
  int rows = 0;
  int size = 0;  // a multiple of 8
};

// Rows of one matrix that are copied into another, of which one is read or written by numbers.
struct GatherRowsArgs {
  const void* from = nullptr;
  const int32_t* rows = nullptr;
  void* to = nullptr;
  int64_t row_bytes = 0;  // a multiple of 16, as are the addresses
};

}  // namespace evaserve
