#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/parallel.h"
#include "kernels/elementwise.h"

namespace evaserve {

void RmsNormCpu(const RmsNormParams& p, WorkerPool& pool) {
  const CpuKernels& kernels = GetCpuKernels();
  ParallelFor(pool, p.rows, p.size, [&](int begin, int end, int) {
    for (int row = begin; row < end; ++row) {
      kernels.rms_norm(p.x + row * p.x_stride, p.weight, p.y + row * p.y_stride, p.size, p.eps);
    }
  });
}

void SwiGluCpu(const SwiGluParams& p, WorkerPool& pool) {
  const CpuKernels& kernels = GetCpuKernels();
  // An exponential and a division are worth about eight multiply-adds.
  ParallelFor(pool, p.rows, int64_t{8} * p.size, [&](int begin, int end, int) {
    for (int row = begin; row < end; ++row) {
      const float* x = p.x + row * p.x_stride;
      kernels.swiglu(x, x + p.size, p.y + row * p.y_stride, p.size);
    }
  });
}

}  // namespace evaserve
