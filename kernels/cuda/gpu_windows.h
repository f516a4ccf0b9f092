#pragma once

#include <optional>

#include "absl/status/status.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/window_batch.h"

namespace evaserve {

// The paper's EVA on a device, with the memory that its plans need there.
//
//   windows.Prepare(*PlanWindows(...));
//   for each layer: windows.Landmarks(...); windows.Attend(...);
//
// Errors as WindowBatch's and Gpu's. Not thread-safe.
class GpuWindows {
 public:
  // `gpu` must outlive it.
  GpuWindows(const WindowOptions& options, Gpu& gpu) : options_(options), gpu_(gpu) {}

  // Uploads a plan, which must have been made with the same options. After an error there is none.
  absl::Status Prepare(const WindowPlan& plan);

  // Neither allocates nor waits. FailedPrecondition if there is no plan.
  absl::Status Landmarks(const LandmarksLayer& layer) const;
  absl::Status Attend(const WindowLayer& layer) const;

 private:
  const WindowOptions options_;
  Gpu& gpu_;
  std::optional<WindowBatch> batch_;  // which bytes_ holds
  GpuMemory bytes_;
};

}  // namespace evaserve
