#include "kernels/linear.h"

namespace evaserve {
namespace {

float Weight(const PackedWeight& weight, int64_t out, int64_t k) {
  const int64_t pack = 4 / SizeOf(weight.dtype());
  const int64_t units = (weight.in_features() + pack - 1) / pack;
  const int64_t index = out / kLinearBlock * kLinearBlock * units * pack +
                        (k / pack * kLinearBlock + out % kLinearBlock) * pack + k % pack;
  if (weight.dtype() == DType::kFloat32) return static_cast<const float*>(weight.data())[index];
  return ToFloat(static_cast<const BFloat16*>(weight.data())[index]);
}

}  // namespace

void LinearCpu(const LinearParams& p, WorkerPool& pool) {
  const PackedWeight& weight = *p.weight;
  const int64_t end = p.out_end == 0 ? weight.out_features() : p.out_end;
  for (int row = 0; row < p.rows; ++row) {
    const float* x = p.x + row * p.x_stride;
    float* y = p.y + row * p.y_stride;
    for (int64_t out = p.out_begin; out < end; ++out) {
      float sum = 0;
      for (int64_t k = 0; k < weight.in_features(); ++k) {
        const float xk = weight.dtype() == DType::kFloat32 ? x[k] : ToFloat(ToBFloat16(x[k]));
        sum += xk * Weight(weight, out, k);
      }
      float& target = y[out - p.out_begin];
      target = p.accumulate ? target + sum : sum;
    }
  }
}

}  // namespace evaserve
