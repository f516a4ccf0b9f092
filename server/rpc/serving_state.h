#pragma once

#include <atomic>

#include "absl/status/status.h"

namespace evaserve {

// Whether the server as a whole takes requests. Thread-safe.
class ServingState {
 public:
  // Every model is loaded.
  void SetServing() { phase_ = Phase::kServing; }

  // For good: requests in flight end, new ones are refused.
  void SetDraining() { phase_ = Phase::kDraining; }

  // Unavailable, with the reason, unless it serves.
  absl::Status Check() const {
    switch (phase_.load()) {
      case Phase::kLoading:
        return absl::UnavailableError("the server is loading its models");
      case Phase::kServing:
        return absl::OkStatus();
      case Phase::kDraining:
        break;
    }
    return absl::UnavailableError("the server is shutting down");
  }

 private:
  enum class Phase { kLoading, kServing, kDraining };

  std::atomic<Phase> phase_{Phase::kLoading};
};

}  // namespace evaserve
