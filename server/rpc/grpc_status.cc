#include "server/rpc/grpc_status.h"

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/engine/overload.h"
#include "server/rpc/quoted.h"

namespace evaserve {
namespace {

// About the time that a short answer takes, so that a place has become free.
constexpr int kRetryMs = 250;
constexpr size_t kMaxMessage = 1000;

// For the trailer grpc-status-details-bin.
std::string RetryDetails(const absl::Status& status, const std::string& message) {
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_nanos(kRetryMs * 1'000'000);
  google::rpc::Status details;
  details.set_code(status.raw_code());
  details.set_message(message);
  details.add_details()->PackFrom(retry);
  return details.SerializeAsString();
}

}  // namespace

std::string MessageOf(const absl::Status& status) {
  const absl::string_view message = status.message();
  return AsUtf8({message.data(), message.size()}, kMaxMessage);
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  const auto code = static_cast<grpc::StatusCode>(status.raw_code());
  const std::string message = MessageOf(status);
  if (!IsOverload(status)) return {code, message};
  return {code, message, RetryDetails(status, message)};
}

std::chrono::milliseconds RetryDelay(const absl::Status& status) {
  return std::chrono::milliseconds(IsOverload(status) ? kRetryMs : 0);
}

void AddRetryPushback(const absl::Status& status, grpc::ServerContextBase& context) {
  if (!IsOverload(status)) return;
  context.AddTrailingMetadata("grpc-retry-pushback-ms", std::to_string(kRetryMs));
}

}  // namespace evaserve
