#pragma once

#include <span>

#include "absl/status/status.h"
#include "kernels/cuda/window_batch.h"

namespace evaserve {

// Whether there can be a plan, and whether its kernels may run on a layer: InvalidArgument, naming
// the field, if not. See WindowPlan, WindowBatch.
absl::Status CheckWindows(const WindowOptions& options, std::span<const RegionItem> items);
absl::Status CheckCausal(const WindowOptions& options, const CausalEvaShape& shape,
                         std::span<const int> lengths);
absl::Status CheckSteps(const WindowOptions& options, const CausalEvaShape& shape,
                        std::span<const CausalStep> steps);
absl::Status CheckLayer(const WindowOptions& options, const LandmarksLayer& layer);
absl::Status CheckLayer(const WindowOptions& options, const WindowLayer& layer);

}  // namespace evaserve
