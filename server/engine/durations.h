#pragma once

#include <chrono>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/engine/request.h"

namespace evaserve {

inline std::chrono::microseconds Between(TimePoint begin, TimePoint end) {
  return std::chrono::duration_cast<std::chrono::microseconds>(end - begin);
}

// From now, for absl::Mutex to wait.
inline absl::Duration Until(TimePoint deadline) {
  if (deadline == TimePoint::max()) return absl::InfiniteDuration();
  return absl::FromChrono(deadline - Clock::now());
}

}  // namespace evaserve
