#include "kernels/cpu/cpu_kernels.h"
#include "kernels/depthwise_conv.h"

namespace evaserve {

void DepthwiseConvCpu(const DepthwiseConvParams& params, WorkerPool& pool) {
  const CpuKernels& kernels = GetCpuKernels();
  const int64_t row_size = int64_t{params.width} * params.channels;
  pool.Run(params.batch * params.height, [&](int row, int /*worker*/) {
    const int y = row % params.height;
    const float* x = params.x + row * row_size;
    kernels.depthwise_row({.above = y > 0 ? x - row_size : nullptr,
                           .row = x,
                           .below = y + 1 < params.height ? x + row_size : nullptr,
                           .weight = params.weight,
                           .bias = params.bias,
                           .y = params.y + row * row_size,
                           .width = params.width,
                           .channels = params.channels});
  });
}

}  // namespace evaserve
