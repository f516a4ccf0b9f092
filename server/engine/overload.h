#pragma once

#include <chrono>
#include <cstdint>

#include "absl/status/status.h"

namespace evaserve {

// What a request is told that is refused because there is too much to do.
enum class OverloadStatus {
  kResourceExhausted,
  kUnavailable,  // as Triton's clients expect it
};

// What may wait for a model's turn; more is refused, so that overload shows at once. One request
// alone may have more tokens and bytes. What finds a free place does not wait, whatever its prompt:
// of a model with max_running places, at most max_running + max_waiting requests are in flight, and
// the tokens of all but max_running of them are bounded.
struct WaitingLimits {
  int max_waiting = 1024;                          // requests
  int64_t max_waiting_tokens = 16 << 20;           // of their prompts
  int64_t max_waiting_bytes = int64_t{512} << 20;  // of their tensors
  OverloadStatus overload_status = OverloadStatus::kResourceExhausted;
};

struct WaitingWork {
  int64_t requests = 0;
  int64_t tokens = 0;
  int64_t bytes = 0;
};

// ResourceExhausted or what `limits` say instead, naming the limit, if `more` cannot wait beside
// what is `waiting` already. Who finds a free place is in neither.
absl::Status CheckRoom(const WaitingLimits& limits, const WaitingWork& waiting,
                       const WaitingWork& more);

// Of a request that has waited for its turn as long as max_queue_time allows: DeadlineExceeded, but
// Unavailable with kUnavailable.
absl::Status QueueTimeError(OverloadStatus overload, std::chrono::milliseconds max_queue_time);

// Whether another try, a little later, may be lucky.
bool IsOverload(const absl::Status& status);

}  // namespace evaserve
