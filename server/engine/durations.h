#pragma once

#include <algorithm>
#include <chrono>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/engine/request.h"

namespace evaserve {

inline std::chrono::microseconds Between(TimePoint begin, TimePoint end) {
  return std::chrono::duration_cast<std::chrono::microseconds>(end - begin);
}

// Where 0 means that there is no limit, so at least 1 ms for more than 0 s.
inline std::chrono::milliseconds MillisecondsOf(double seconds) {
  using std::chrono::milliseconds;
  if (seconds <= 0) return milliseconds(0);
  return std::max(std::chrono::round<milliseconds>(std::chrono::duration<double>(seconds)),
                  milliseconds(1));
}

// The earlier of `deadline` and the end of what a limit allows from `now` on; 0: no limit.
inline TimePoint Within(std::chrono::milliseconds limit, TimePoint now, TimePoint deadline) {
  return limit.count() > 0 ? std::min(deadline, now + limit) : deadline;
}

inline absl::Status CheckDeadline(TimePoint deadline, TimePoint now) {
  if (deadline > now) return absl::OkStatus();
  return absl::DeadlineExceededError("the deadline has passed");
}

// From now, for absl::Mutex to wait.
inline absl::Duration Until(TimePoint deadline) {
  if (deadline == TimePoint::max()) return absl::InfiniteDuration();
  return absl::FromChrono(deadline - Clock::now());
}

}  // namespace evaserve
