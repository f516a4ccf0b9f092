#pragma once

#include <string>

#include "absl/status/status.h"

namespace evaserve {

// What a launcher or the driver says, as a status. Out of memory is said of a kernel whose code is
// loaded at its first launch, and leaves the device usable.
inline absl::Status LaunchStatus(const std::string& error) {
  if (error.empty()) return absl::OkStatus();
  if (error == "out of memory") return absl::ResourceExhaustedError("device: " + error);
  return absl::UnavailableError("the device is lost: " + error);
}

}  // namespace evaserve
