#pragma once

#include <atomic>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

namespace evaserve {

// Whether the server as a whole takes requests. Thread-safe.
class ServingState {
 public:
  // Every model was loaded, or tried. False, and without effect, if it drains by now.
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

  // The names of models that were to be there from the start and are missing; empty: none.
  void SetMissing(std::string models) {
    absl::MutexLock lock(&mutex_);
    missing_ = std::move(models);
  }

  // Check(), and no model is missing: whether it is what it was to be, for those who send it
  // requests or wait for it.
  absl::Status CheckReady() const {
    if (absl::Status status = Check(); !status.ok()) return status;
    absl::MutexLock lock(&mutex_);
    if (missing_.empty()) return absl::OkStatus();
    return absl::UnavailableError(
        absl::StrCat("models that were to be loaded at the start are missing: ", missing_));
  }

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
  mutable absl::Mutex mutex_;
  std::string missing_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace evaserve
