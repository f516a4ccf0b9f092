#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/gpu.h"

namespace evaserve {

// Ends the program if something failed.
template <typename T>
T Must(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::fprintf(stderr, "%s\n", std::string(value.status().message()).c_str());
    std::exit(1);
  }
  return *std::move(value);
}
inline void Must(const absl::Status& status) {
  Must(status.ok() ? absl::StatusOr<int>(0) : absl::StatusOr<int>(status));
}

// Times work on a device, and what the device itself can do.
class DeviceTimer {
 public:
  DeviceTimer(Gpu& gpu, int repeats) : gpu_(gpu), repeats_(repeats) {}

  // Seconds of one call: the fastest of several runs of `repeats` calls each.
  double Time(const std::function<absl::Status()>& call);

  // Operations a second of a square matrix product in bfloat16.
  double MultiplyRate(int size);
  // Bytes a second, read and written, of a copy by rows.
  double CopyRate(int64_t num_rows);

 private:
  void Wait();

  Gpu& gpu_;
  const int repeats_;
};

}  // namespace evaserve
