#include "kernels/cuda/gpu_windows.h"

#include "kernels/cuda/launchers.h"

namespace evaserve {

absl::Status GpuWindows::Prepare(const WindowPlan& plan) {
  batch_.emplace(options_, plan);
  const auto size = std::ssize(batch_->bytes());
  if (absl::Status status = Grow(gpu_, size, bytes_); !status.ok()) return status;
  return gpu_.ToDevice(bytes_.as<void>(), batch_->bytes().data(), size);
}

absl::Status GpuWindows::Landmarks(const LandmarksLayer& layer) const {
  const absl::StatusOr<LandmarksArgs> args = batch_->Args(layer, bytes_.as<void>());
  if (!args.ok()) return args.status();
  return LaunchStatus(LaunchLandmarks(options_.shape.type, *args, gpu_.stream()));
}

absl::Status GpuWindows::Attend(const WindowLayer& layer) const {
  const absl::StatusOr<WindowAttendArgs> args = batch_->Args(layer, bytes_.as<void>());
  if (!args.ok()) return args.status();
  return LaunchStatus(LaunchWindowAttend(options_.shape.type, *args, gpu_.stream()));
}

}  // namespace evaserve
