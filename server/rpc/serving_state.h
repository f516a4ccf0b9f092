#pragma once

#include <atomic>

#include "absl/status/status.h"

namespace evaserve {

// Whether the server as a whole takes requests. Thread-safe.
class ServingState {
 public:
  // Every model is loaded. False, and without effect, if it drains by now.
  bool SetServing() {
    Phase loading = Phase::kLoading;
    return phase_.compare_exchange_strong(loading, Phase::kServing);
  }

  // For good: requests in flight end, new ones are refused.
  void SetDraining() { phase_ = Phase::kDraining; }
  bool is_draining() const { return phase_ == Phase::kDraining; }

  // Whether the step of some model does not end.
  void SetStuck(bool stuck) { is_stuck_ = stuck; }
  bool is_stuck() const { return is_stuck_; }

  // Unavailable, with the reason, unless it serves.
  absl::Status Check() const {
    switch (phase_.load()) {
      case Phase::kLoading:
        return absl::UnavailableError("the server is loading its models");
      case Phase::kServing:
        if (!is_stuck_) return absl::OkStatus();
        return absl::UnavailableError("a model's step does not end");
      case Phase::kDraining:
        break;
    }
    return absl::UnavailableError("the server is shutting down");
  }

 private:
  enum class Phase { kLoading, kServing, kDraining };

  std::atomic<Phase> phase_{Phase::kLoading};
  std::atomic<bool> is_stuck_{false};
};

}  // namespace evaserve
