#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace evaserve {

// Where a model runs.
struct Device {
  enum class Kind {
    kAuto,  // the first CUDA device that takes the model; without one, the CPU
    kCpu,
    kCuda,
  };
  Kind kind = Kind::kCpu;
  int index = 0;  // of a CUDA device
};

// From "auto", "cpu", "cuda" or "cuda:N"; InvalidArgument for anything else.
absl::StatusOr<Device> ParseDevice(std::string_view text);

// What ParseDevice() reads.
std::string Name(const Device& device);

// Unimplemented if a model that knows the CPU alone is told to run on something else.
absl::Status RequireCpu(const Device& device);

}  // namespace evaserve
