#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include <chrono>

#include "absl/status/status.h"

namespace evaserve {

// The codes have the same numbers. The message is cut to what fits a trailer everywhere: it may
// quote what a client sent. What IsOverload() has a google.rpc.RetryInfo in its details.
grpc::Status ToGrpcStatus(const absl::Status& status);

// How long to wait before another try, where that can help; else 0.
std::chrono::milliseconds RetryDelay(const absl::Status& status);

// Tells the client's retry policy how long to wait, if `status` IsOverload(). Call before the
// call is finished, once.
void AddRetryPushback(const absl::Status& status, grpc::ServerContextBase& context);

}  // namespace evaserve
