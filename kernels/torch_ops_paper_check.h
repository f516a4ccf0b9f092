#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "kernels/regions.h"

namespace evaserve {

// The arguments of eva::window_attention and eva::causal_attention that both have
// (torch_ops_paper.cc says what they are).
struct PaperAttentionTensors {
  const at::Tensor &q, &k, &v;
  at::TensorList map_q, map_k;
  const std::optional<at::Tensor>& bias;
  const std::optional<at::Tensor>& lengths;
  std::optional<double> scale;
};

// What the operations demand on every device, and of shapes that are symbols (torch.export).
// c10::Error, naming the argument, its value and what would be right.
void CheckWindowAttention(const PaperAttentionTensors& tensors, int64_t window,
                          int64_t num_landmarks, bool overlap);
void CheckCausalAttention(const PaperAttentionTensors& tensors, int64_t window, int64_t chunk,
                          bool overlap);

// How the tokens of q, whose sizes are numbers, lie: a map of two dimensions if q has five.
RegionShape RegionShapeOf(const at::Tensor& q, int64_t window, int64_t num_landmarks, bool overlap);

}  // namespace evaserve
