#include "server/engine/overload.h"

#include "absl/strings/string_view.h"

namespace evaserve {
namespace {

// Marks an Unavailable that is about overload among those that are not.
constexpr char kPayload[] = "evaserve/overload";

absl::Status Unavailable(std::string_view message) {
  absl::Status status = absl::UnavailableError(absl::string_view(message.data(), message.size()));
  status.SetPayload(kPayload, absl::Cord());
  return status;
}

}  // namespace

absl::Status QueueFullError(OverloadStatus overload, std::string_view message) {
  if (overload == OverloadStatus::kUnavailable) return Unavailable(message);
  return absl::ResourceExhaustedError(absl::string_view(message.data(), message.size()));
}

absl::Status QueueTimeError(OverloadStatus overload, std::string_view message) {
  if (overload == OverloadStatus::kUnavailable) return Unavailable(message);
  return absl::DeadlineExceededError(absl::string_view(message.data(), message.size()));
}

bool IsOverload(const absl::Status& status) {
  return absl::IsResourceExhausted(status) || status.GetPayload(kPayload).has_value();
}

}  // namespace evaserve
