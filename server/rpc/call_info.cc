#include "server/rpc/call_info.h"

#include <chrono>

namespace evaserve {

TimePoint DeadlineOf(const grpc::ServerContextBase& context) {
  // Further away than this is as good as none, and subtracting from it would overflow.
  constexpr std::chrono::hours kForever{24 * 365};
  const auto left = context.deadline() - std::chrono::system_clock::now();
  if (left > kForever) return TimePoint::max();
  return Clock::now() + left;
}

std::string MetadataOf(const grpc::ServerContextBase& context, const char* key) {
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find(key);
  if (found == metadata.end()) return "";
  return {found->second.data(), found->second.size()};
}

std::string OnlyMetadataOf(const grpc::ServerContextBase& context, const char* key) {
  return context.client_metadata().count(key) == 1 ? MetadataOf(context, key) : "";
}

RequestIdentity RequestIdOf(const grpc::ServerContextBase& context, const std::string& field) {
  return {.id = field.empty() ? MetadataOf(context, "x-request-id") : field,
          .trace = ParseTraceparent(OnlyMetadataOf(context, "traceparent"))};
}

absl::Status TellExpired(absl::Status status, TimePoint deadline) {
  if (absl::IsCancelled(status) && Clock::now() >= deadline) {
    return absl::DeadlineExceededError("the deadline has passed");
  }
  return status;
}

}  // namespace evaserve
