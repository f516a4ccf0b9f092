#include "kernels/cuda/gpu_step.h"

#include <utility>

namespace evaserve {
namespace {

StepOptions WithDevice(StepOptions options, const GpuInfo& device) {
  options.compute_capability = device.compute_capability;
  options.num_multiprocessors = device.num_multiprocessors;
  options.num_narrow_blocks =
      device.num_multiprocessors * NarrowBlocksPerMultiprocessor(options.shape);
  return options;
}

}  // namespace

GpuStep::GpuStep(const StepOptions& options, Gpu& gpu)
    : options_(WithDevice(options, gpu.info())), gpu_(gpu) {}

absl::Status GpuStep::Prepare(const StepInput& input, int num_pages, const StepRoom* room) {
  absl::StatusOr<StepPlan> plan = StepPlan::Make(options_, input, num_pages, room);
  if (!plan.ok()) return plan.status();
  if (absl::Status status = MakeMemory(*plan); !status.ok()) return status;
  plan_ = *std::move(plan);
  return gpu_.ToDevice(bytes_.as<void>(), plan_->bytes().data(), std::ssize(plan_->bytes()));
}

absl::Status GpuStep::Reserve(const StepRoom& room) {
  const absl::StatusOr<StepPlan> plan = StepPlan::Make(options_, {}, /*num_pages=*/0, &room);
  return plan.ok() ? MakeMemory(*plan) : plan.status();
}

absl::Status GpuStep::MakeMemory(const StepPlan& plan) {
  const std::pair<GpuMemory&, int64_t> needs[] = {
      {bytes_, std::ssize(plan.bytes())},
      {partials_, plan.num_partial_floats() * int64_t{sizeof(float)}},
      {num_arrived_, plan.num_arrived() * int64_t{sizeof(int32_t)}},
      {zeros_, kZeroBytes}};
  for (const auto& [memory, bytes] : needs) {
    if (absl::Status status = Grow(gpu_, bytes, memory); !status.ok()) return status;
  }
  return absl::OkStatus();
}

StepMemory GpuStep::Memory() const {
  return {.plan = bytes_.as<void>(),
          .zeros = zeros_.as<void>(),
          .num_arrived = num_arrived_.as<int32_t>(),
          .partials = partials_.as<float>()};
}

}  // namespace evaserve
