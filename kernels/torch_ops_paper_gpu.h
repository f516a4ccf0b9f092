#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "kernels/torch_ops_plan_cache.h"

namespace evaserve {

// The arguments of torch.ops.eva.window_attention and causal_attention, see torch_ops_paper.cc.
// Tensors but lengths are in the device's memory.
struct TorchPaperCall {
  at::Tensor q, k, v;
  int64_t window = 0;
  int64_t num_landmarks = 0;  // of window_attention
  int64_t chunk = 0;          // of causal_attention
  std::vector<at::Tensor> map_q, map_k;
  std::optional<at::Tensor> bias;
  bool overlap = false;
  std::optional<at::Tensor> lengths;
  std::optional<double> scale;
};

// Both on one device. What TorchGpuOps (torch_ops_gpu.h) says of devices, plans, memory, threads
// and errors holds here too.
class TorchPaperOps {
 public:
  // Keeps so many plans besides those in CUDA graphs.
  explicit TorchPaperOps(int max_plans = 64) : plans_(max_plans) {}

  at::Tensor WindowAttention(const TorchPaperCall& call, const TorchGpuStream& stream);
  at::Tensor CausalAttention(const TorchPaperCall& call, const TorchGpuStream& stream);

 private:
  struct Plan;

  at::Tensor Run(const TorchPaperCall& call, const TorchGpuStream& stream);
  // The one that there is, or a new one.
  std::shared_ptr<const Plan> PlanOf(const TorchPaperCall& call,
                                     const std::vector<int64_t>& lengths,
                                     const TorchGpuStream& stream);
  static std::shared_ptr<const Plan> MakePlan(const TorchPaperCall& call,
                                              const std::vector<int64_t>& lengths);

  TorchPlanCache<Plan> plans_;
};

}  // namespace evaserve
