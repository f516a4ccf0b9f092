#pragma once

#include <optional>

#include "absl/status/status.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/step_plan.h"

namespace evaserve {

// The steps of a batch on a device, with the memory that they need there.
//
//   step.Prepare(...);
//   for each layer: step.Store(...); step.Attend(...);
//
// Not thread-safe.
class GpuStep {
 public:
  // `gpu` must outlive it. What `options` says of the device does not count: `gpu` knows.
  GpuStep(const StepOptions& options, Gpu& gpu);

  // Plans a step and uploads the plan. Errors as StepPlan::Make()'s and Gpu's.
  absl::Status Prepare(const StepInput& input, int num_pages, const StepRoom* room = nullptr);

  // Makes room in advance: afterwards, steps with that room or less move no memory.
  absl::Status Reserve(const StepRoom& room);

  // See StepPlan.
  absl::Status Store(const StepLayer& layer) {
    return plan_->Store(layer, Memory(), gpu_.stream());
  }
  absl::Status Attend(const StepLayer& layer, void* out, int64_t out_stride) {
    return plan_->Attend(layer, out, out_stride, Memory(), gpu_.stream());
  }
  const int32_t* tokens() const { return plan_->tokens(Memory()); }

 private:
  StepMemory Memory() const;
  absl::Status MakeMemory(const StepPlan& plan);

  const StepOptions options_;
  Gpu& gpu_;
  std::optional<StepPlan> plan_;
  GpuMemory bytes_, partials_, num_arrived_, zeros_;
};

}  // namespace evaserve
