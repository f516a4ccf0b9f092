#include "server/engine/overload.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

// Marks an Unavailable that is about overload among those that are not.
constexpr char kPayload[] = "evaserve/overload";

absl::Status Unavailable(const std::string& message) {
  absl::Status status = absl::UnavailableError(message);
  status.SetPayload(kPayload, absl::Cord());
  return status;
}

absl::Status QueueFullError(OverloadStatus overload, const std::string& message) {
  if (overload == OverloadStatus::kUnavailable) return Unavailable(message);
  return absl::ResourceExhaustedError(message);
}

}  // namespace

absl::Status CheckRoom(const WaitingLimits& limits, const WaitingWork& waiting,
                       const WaitingWork& more) {
  if (waiting.requests + more.requests > limits.max_waiting) {
    return QueueFullError(
        limits.overload_status,
        absl::StrCat("too many requests are waiting, the limit is ", limits.max_waiting));
  }
  if (waiting.requests == 0) return absl::OkStatus();
  const struct {
    const char* what;
    int64_t waiting, more, limit;
  } sums[] = {{"tokens", waiting.tokens, more.tokens, limits.max_waiting_tokens},
              {"bytes of tensors", waiting.bytes, more.bytes, limits.max_waiting_bytes}};
  for (const auto& sum : sums) {
    if (sum.waiting + sum.more <= sum.limit) continue;
    return QueueFullError(limits.overload_status,
                          absl::StrCat(sum.waiting, " ", sum.what, " are waiting, ", sum.more,
                                       " more would pass the limit of ", sum.limit));
  }
  return absl::OkStatus();
}

absl::Status QueueTimeError(OverloadStatus overload, std::chrono::milliseconds max_queue_time) {
  const std::string message =
      absl::StrCat("no place has become free in ", max_queue_time.count(), " ms (max_queue_time)");
  if (overload == OverloadStatus::kUnavailable) return Unavailable(message);
  return absl::DeadlineExceededError(message);
}

bool IsOverload(const absl::Status& status) {
  return absl::IsResourceExhausted(status) || status.GetPayload(kPayload).has_value();
}

}  // namespace evaserve
