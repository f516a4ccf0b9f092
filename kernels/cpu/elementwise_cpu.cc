#include <cmath>

#include "kernels/elementwise.h"

namespace evaserve {

void RmsNormCpu(const RmsNormParams& p, WorkerPool& pool) {
  for (int row = 0; row < p.rows; ++row) {
    const float* x = p.x + row * p.x_stride;
    float* y = p.y + row * p.y_stride;
    float sum = 0;
    for (int i = 0; i < p.size; ++i) sum += x[i] * x[i];
    const float inverse = 1.f / std::sqrt(sum / p.size + p.eps);
    for (int i = 0; i < p.size; ++i) y[i] = x[i] * inverse * p.weight[i];
  }
}

void SwiGluCpu(const SwiGluParams& p, WorkerPool& pool) {
  for (int row = 0; row < p.rows; ++row) {
    const float* x = p.x + row * p.x_stride;
    float* y = p.y + row * p.y_stride;
    for (int i = 0; i < p.size; ++i) y[i] = x[i] / (1.f + std::exp(-x[i])) * x[p.size + i];
  }
}

}  // namespace evaserve
