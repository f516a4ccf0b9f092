#pragma once

#include <cstdint>

#include "kernels/worker_pool.h"

namespace evaserve {

// A 3x3 convolution of each channel by itself, with zeros around the map: what gives positions to
// the MLPs of PVTv2.
//
// Source: Wang et al., "PVT v2: Improved Baselines with Pyramid Vision Transformer", 2021
// (arXiv 2106.13797), section 3.1.
struct DepthwiseConvParams {
  const float* x = nullptr;       // [batch, height, width, channels]
  const float* weight = nullptr;  // [3, 3, channels]: PyTorch's [channels, 1, 3, 3], transposed
  const float* bias = nullptr;    // [channels]
  float* y = nullptr;             // as x; must not overlap it
  int batch = 0;
  int height = 0;
  int width = 0;
  int channels = 0;
};

// Plain loops, float64 sums, one thread: what the operation means.
void DepthwiseConvReference(const DepthwiseConvParams& params);

// In float32. A map's result does not depend, to the bit, on the others or on the number of
// workers.
void DepthwiseConvCpu(const DepthwiseConvParams& params, WorkerPool& pool);

}  // namespace evaserve
