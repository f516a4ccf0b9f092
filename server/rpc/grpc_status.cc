#include "server/rpc/grpc_status.h"

namespace evaserve {

void AddRetryPushback(const absl::Status& status, grpc::ServerContextBase& context) {
  // About the time that a short answer takes, so that a place has become free.
  constexpr char kPushbackMs[] = "250";
  if (absl::IsResourceExhausted(status)) {
    context.AddTrailingMetadata("grpc-retry-pushback-ms", kPushbackMs);
  }
}

}  // namespace evaserve
