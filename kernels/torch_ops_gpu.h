#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <tuple>

#include "kernels/torch_ops_plan_cache.h"

namespace evaserve {

// The arguments of torch.ops.eva.attention, see torch_ops.cc. Tensors are in the device's memory;
// summarize has neither q nor window.
struct TorchEvaCall {
  at::Tensor q, k, v, mu, phi;
  int64_t window = 0, chunk = 0;
  std::optional<double> scale;
};

// torch.ops.eva on one device. What a device is, the launchers decide that the program has (see
// kernels/cuda/gpu.h): the emulator's take tensors of the CPU.
//
// A call is planned when its shapes come for the first time, since that uploads; a CUDA graph can
// do that no more and needs a call before it is captured. Memory comes from LibTorch's allocator,
// so from the graph's pool during a capture. Thread-safe.
//
// Errors: c10::Error, naming the argument, before anything is launched.
class TorchGpuOps {
 public:
  struct Options {
    int compute_capability = 0;  // 90 for sm_90
    int num_multiprocessors = 1;
    int max_plans = 64;  // kept, besides those in CUDA graphs, which are kept forever
  };

  explicit TorchGpuOps(const Options& options) : options_(options), plans_(options.max_plans) {}

  at::Tensor Attention(const TorchEvaCall& call, const TorchGpuStream& stream);
  std::tuple<at::Tensor, at::Tensor> Summarize(const TorchEvaCall& call,
                                               const TorchGpuStream& stream);

 private:
  enum class Op { kAttention, kSummarize };
  struct Plan;

  // The one that there is, or a new one.
  std::shared_ptr<const Plan> PlanOf(Op op, const TorchEvaCall& call, const TorchGpuStream& stream);
  std::shared_ptr<const Plan> MakePlan(Op op, const TorchEvaCall& call) const;

  const Options options_;
  TorchPlanCache<Plan> plans_;
};

}  // namespace evaserve
