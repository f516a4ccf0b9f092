#pragma once

#include <algorithm>

#include "kernels/adaptive_norm.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/landmarks.h"

namespace evaserve {

// y = map(x) for rows [head_dim], one behind the other. A row's result does not depend on the
// others.
inline void ApplyMap(const AdaptiveMap& map, const float* x, int rows, int head_dim, float* y) {
  const CpuKernels& kernels = GetCpuKernels();
  for (int begin = 0; begin < head_dim; begin += kLinearBlock) {
    LinearTile tile;
    tile.x = x;
    tile.x_stride = head_dim;
    tile.weight = static_cast<const float*>(map.weight->data()) + int64_t{begin} * head_dim;
    tile.y = y + begin;
    tile.y_stride = head_dim;
    tile.num_rows = rows;
    tile.num_units = head_dim;
    tile.out_end = std::min(kLinearBlock, head_dim - begin);
    tile.bias = map.bias + begin;
    kernels.linear(tile);
  }
  if (map.norm_weight == nullptr) return;
  for (int i = 0; i < rows; ++i) {
    float* row = y + int64_t{i} * head_dim;
    kernels.layer_norm(row, map.norm_weight, map.norm_bias, row, head_dim, kAdaptiveNormEps);
  }
}

// Turns rows of qbar into rows of mu, see landmarks.h.
inline void MixMu(float mu_scale, const float* k_bar, int size, float* q_bar) {
  for (int i = 0; i < size; ++i) q_bar[i] = mu_scale * (q_bar[i] + k_bar[i]);
}

}  // namespace evaserve
