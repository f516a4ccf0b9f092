#pragma once

#include <atomic>
#include <chrono>
#include <optional>

#include "server/engine/request.h"

namespace evaserve {

// Tells other threads how long the step of an engine's thread has taken so far. Thread-safe.
class StepClock {
 public:
  void Start(TimePoint now) { start_ = now.time_since_epoch().count(); }
  void Stop() { start_ = kNoStep; }

  // Nothing if no step is going on.
  std::optional<std::chrono::milliseconds> age() const {
    const TimePoint::rep start = start_;
    if (start == kNoStep) return std::nullopt;
    return std::chrono::duration_cast<std::chrono::milliseconds>(
        Clock::now() - TimePoint(TimePoint::duration(start)));
  }

 private:
  static constexpr TimePoint::rep kNoStep = -1;
  std::atomic<TimePoint::rep> start_{kNoStep};
};

}  // namespace evaserve
