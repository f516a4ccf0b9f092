#include "bench/gpu/device_timer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "kernels/cuda/launchers.h"

namespace evaserve {

double DeviceTimer::Time(const std::function<absl::Status()>& call) {
  double best = INFINITY;
  for (int run = 0; run < 5; ++run) {
    Wait();
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < repeats_; ++i) Must(call());
    Wait();
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    best = std::min(best, time.count() / repeats_);
  }
  return best;
}

double DeviceTimer::MultiplyRate(int size) {
  const int64_t bytes = int64_t{size} * size * 2;
  const GpuMemory x = Must(gpu_.Allocate(bytes)), w = Must(gpu_.Allocate(bytes)),
                  y = Must(gpu_.Allocate(bytes));
  const double seconds = Time([&] {
    return gpu_.Multiply({.type = DType::kBFloat16,
                          .x = x.as<void>(),
                          .x_stride = size,
                          .weight = w.as<void>(),
                          .y = y.as<void>(),
                          .y_stride = size,
                          .rows = size,
                          .in = size,
                          .out = size});
  });
  return 2. * size * size * size / seconds;
}

double DeviceTimer::CopyRate(int64_t num_rows) {
  constexpr int64_t kRowBytes = 8192;
  std::vector<int32_t> numbers(num_rows);
  for (int64_t i = 0; i < num_rows; ++i) numbers[i] = static_cast<int32_t>(i);
  const GpuMemory from = Must(gpu_.Allocate(num_rows * kRowBytes)),
                  to = Must(gpu_.Allocate(num_rows * kRowBytes)),
                  rows = Must(gpu_.Allocate(num_rows * 4));
  Must(gpu_.ToDevice(rows.as<void>(), numbers.data(), num_rows * 4));
  const double seconds = Time([&] {
    return LaunchStatus(
        LaunchGatherRows({from.as<void>(), rows.as<int32_t>(), to.as<void>(), kRowBytes},
                         static_cast<int>(num_rows), gpu_.stream()));
  });
  return 2. * num_rows * kRowBytes / seconds;
}

void DeviceTimer::Wait() {
  static char byte;
  static const GpuMemory memory = Must(gpu_.Allocate(16));
  Must(gpu_.ToHost(&byte, memory.as<void>(), 1));
}

}  // namespace evaserve
