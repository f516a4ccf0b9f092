#pragma once

#include <string_view>

#include "absl/status/status.h"

namespace evaserve {

// What a request is told that is refused because there is too much to do.
enum class OverloadStatus {
  kResourceExhausted,
  kUnavailable,  // as Triton's clients expect it
};

// Of a request that finds no place in the queue.
absl::Status QueueFullError(OverloadStatus overload, std::string_view message);

// Of one that has waited too long for its turn: DeadlineExceeded, but Unavailable with
// kUnavailable.
absl::Status QueueTimeError(OverloadStatus overload, std::string_view message);

// Whether another try, a little later, may be lucky.
bool IsOverload(const absl::Status& status);

}  // namespace evaserve
