#pragma once

#include <cstdint>
#include <span>

#include "kernels/aligned_memory.h"
#include "kernels/dtype.h"
#include "kernels/worker_pool.h"

namespace evaserve {

// A row-major [out_features, in_features] matrix that somebody else owns.
struct WeightView {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;
  int64_t out_features = 0;
  int64_t in_features = 0;
};

// Output features in a block of packed weights.
inline constexpr int kLinearBlock = 64;

// Weights of y = x W^T in the order in which the CPU kernel reads them:
//
//   [out_features / kLinearBlock][in_features / pack][kLinearBlock][pack]
//
// with pack 1 for float32 and 2 for bfloat16; both sizes are padded with zeros. Immutable.
class PackedWeight {
 public:
  // Stacks `parts` by rows (so that q, k and v are one product), converts them to `dtype` and packs
  // them. All parts have the same in_features.
  static PackedWeight Pack(std::span<const WeightView> parts, DType dtype);

  DType dtype() const { return dtype_; }
  int64_t out_features() const { return out_features_; }
  int64_t in_features() const { return in_features_; }
  const void* data() const { return data_.get(); }
  int64_t bytes() const { return bytes_; }
  // For references and tests.
  float at(int64_t out, int64_t in) const { return LoadElement(data(), dtype_, index(out, in)); }

 private:
  int64_t index(int64_t out, int64_t in) const;

  DType dtype_ = DType::kFloat32;
  int64_t out_features_ = 0;
  int64_t in_features_ = 0;
  int64_t bytes_ = 0;
  AlignedMemory data_;
};

struct LinearParams {
  const PackedWeight* weight = nullptr;
  const float* x = nullptr;  // [rows, in_features]
  int64_t x_stride = 0;
  float* y = nullptr;  // [rows, out_end - out_begin]
  int64_t y_stride = 0;
  int rows = 0;
  // Which output features to compute. out_end 0 means all.
  int64_t out_begin = 0;
  int64_t out_end = 0;
  bool accumulate = false;  // y += instead of y =
  // [out_features] of the whole weight, whatever is computed of it; null means none.
  const float* bias = nullptr;
};

// y = x W^T + bias. With bfloat16 weights x is rounded to bfloat16 and sums are float32. A row's
// result does not depend, to the bit, on the other rows or on the number of workers.
void LinearCpu(const LinearParams& params, WorkerPool& pool);

}  // namespace evaserve
