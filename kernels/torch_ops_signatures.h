#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <tuple>

namespace evaserve {

// What the operators of torch.ops.eva take and give, for whoever calls them through the dispatcher.
using AttentionFn = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                               const at::Tensor&, const at::Tensor&, int64_t, int64_t,
                               std::optional<double>);
using SummarizeFn = std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&,
                                                       const at::Tensor&, const at::Tensor&,
                                                       int64_t, std::optional<double>);
using WindowAttentionFn = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                     int64_t, int64_t, at::TensorList, at::TensorList,
                                     const std::optional<at::Tensor>&, bool,
                                     const std::optional<at::Tensor>&, std::optional<double>);
using CausalAttentionFn = WindowAttentionFn;  // a chunk's tokens in place of num_landmarks

}  // namespace evaserve
