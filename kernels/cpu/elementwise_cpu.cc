#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/parallel.h"
#include "kernels/elementwise.h"

namespace evaserve {
namespace {

// An exponential and a division are worth about eight multiply-adds.
constexpr int64_t kExponentialWork = 8;

void Glu(const GluParams& p, WorkerPool& pool,
         void (*glu)(const float* gate, const float* up, float* y, int size)) {
  ParallelFor(pool, p.rows, kExponentialWork * p.size, [&](int begin, int end, int) {
    for (int row = begin; row < end; ++row) {
      const float* x = p.x + row * p.x_stride;
      glu(x, x + p.size, p.y + row * p.y_stride, p.size);
    }
  });
}

void Activate(const ActivationParams& p, WorkerPool& pool, int64_t work,
              void (*activation)(const float* x, float* y, int size)) {
  ParallelFor(pool, p.rows, work * p.size, [&](int begin, int end, int) {
    for (int row = begin; row < end; ++row) {
      activation(p.x + row * p.x_stride, p.y + row * p.y_stride, p.size);
    }
  });
}

}  // namespace

void RmsNormCpu(const RmsNormParams& p, WorkerPool& pool) {
  const CpuKernels& kernels = GetCpuKernels();
  ParallelFor(pool, p.rows, p.size, [&](int begin, int end, int) {
    for (int row = begin; row < end; ++row) {
      kernels.rms_norm(p.x + row * p.x_stride, p.weight, p.y + row * p.y_stride, p.size, p.eps);
    }
  });
}

void LayerNormCpu(const LayerNormParams& p, WorkerPool& pool) {
  const CpuKernels& kernels = GetCpuKernels();
  ParallelFor(pool, p.rows, p.size, [&](int begin, int end, int) {
    for (int row = begin; row < end; ++row) {
      kernels.layer_norm(p.x + row * p.x_stride, p.weight, p.bias, p.y + row * p.y_stride, p.size,
                         p.eps);
    }
  });
}

void SwiGluCpu(const GluParams& params, WorkerPool& pool) {
  Glu(params, pool, GetCpuKernels().swiglu);
}

void GeGluCpu(const GluParams& params, WorkerPool& pool) {
  Glu(params, pool, GetCpuKernels().geglu);
}

void GeluCpu(const ActivationParams& params, WorkerPool& pool) {
  Activate(params, pool, kExponentialWork, GetCpuKernels().gelu);
}

void ReluCpu(const ActivationParams& params, WorkerPool& pool) {
  Activate(params, pool, 1, GetCpuKernels().relu);
}

}  // namespace evaserve
