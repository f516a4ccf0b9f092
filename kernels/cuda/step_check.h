#pragma once

#include "absl/status/status.h"
#include "kernels/cuda/step_plan.h"

namespace evaserve {

// The kernels read and write 16 bytes at once: InvalidArgument, naming the field, unless memory
// begins at a multiple of 16 and rows are `stride` elements apart, a multiple of 8 not below their
// width.
absl::Status CheckAddress(const char* field, const void* address);
absl::Status CheckRows(const char* field, const void* address, int64_t stride, int64_t width);

// Whether the kernels may run a step: InvalidArgument, naming the field, if not. See StepPlan.
absl::Status CheckStep(const StepOptions& options, const StepInput& input, int num_pages,
                       const StepRoom* room);

// Whether they may run on a layer, for attention with `out` (else null).
struct StepOut {
  const void* data = nullptr;
  int64_t stride = 0;
};
absl::Status CheckLayer(const StepOptions& options, const StepLayer& layer, const StepOut* out);

}  // namespace evaserve
