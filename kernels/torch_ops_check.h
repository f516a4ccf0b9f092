#pragma once

#include <ATen/core/Tensor.h>

#include <cmath>
#include <optional>

namespace evaserve {

// What the operations of torch.ops.eva demand on every device, and of shapes that are symbols
// (torch.export). c10::Error, naming the argument, its value and what would be right.
void CheckSummarize(const at::Tensor& k, const at::Tensor& v, const at::Tensor& mu,
                    const at::Tensor& phi, int64_t chunk);
void CheckAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                    const at::Tensor& mu, const at::Tensor& phi, int64_t window, int64_t chunk);

// Of a tensor that was checked.
struct TorchShape {
  explicit TorchShape(const at::Tensor& k)
      : batch(k.size(0)), num_heads(k.size(1)), seq_len(k.size(2)), head_dim(k.size(3)) {}

  int64_t batch, num_heads, seq_len, head_dim;
};

inline float ScaleOr(std::optional<double> scale, int64_t head_dim) {
  return static_cast<float>(scale.value_or(1 / std::sqrt(static_cast<double>(head_dim))));
}

}  // namespace evaserve
