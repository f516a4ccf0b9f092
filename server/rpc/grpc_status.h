#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include <string>

#include "absl/status/status.h"

namespace evaserve {

// The codes have the same numbers. The message is cut to what fits a trailer everywhere: it may
// quote what a client sent.
inline grpc::Status ToGrpcStatus(const absl::Status& status) {
  return {static_cast<grpc::StatusCode>(status.raw_code()),
          std::string(status.message().substr(0, 1000))};
}

// Tells the client's retry policy how long to wait, if `status` is ResourceExhausted. Call before
// the call is finished, once.
void AddRetryPushback(const absl::Status& status, grpc::ServerContextBase& context);

}  // namespace evaserve
