#include "kernels/cuda/gpu_windows.h"

#include <utility>

#include "kernels/cuda/launchers.h"

namespace evaserve {
namespace {

absl::Status NoPlan() { return absl::FailedPreconditionError("no plan was uploaded"); }

}  // namespace

absl::Status GpuWindows::Prepare(const WindowPlan& plan) {
  batch_.reset();
  WindowBatch batch(options_, plan);
  const auto size = std::ssize(batch.bytes());
  if (absl::Status status = Grow(gpu_, size, bytes_); !status.ok()) return status;
  absl::Status status = gpu_.ToDevice(bytes_.as<void>(), batch.bytes().data(), size);
  if (status.ok()) batch_ = std::move(batch);
  return status;
}

absl::Status GpuWindows::Landmarks(const LandmarksLayer& layer) const {
  if (!batch_) return NoPlan();
  const absl::StatusOr<LandmarksArgs> args = batch_->Args(layer, bytes_.as<void>());
  if (!args.ok()) return args.status();
  return LaunchStatus(LaunchLandmarks(options_.shape.type, *args, gpu_.stream()));
}

absl::Status GpuWindows::Attend(const WindowLayer& layer) const {
  if (!batch_) return NoPlan();
  const absl::StatusOr<WindowAttendArgs> args = batch_->Args(layer, bytes_.as<void>());
  if (!args.ok()) return args.status();
  return LaunchStatus(LaunchWindowAttend(options_.shape.type, *args, gpu_.stream()));
}

}  // namespace evaserve
