#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include <chrono>
#include <string>

#include "absl/status/status.h"

namespace evaserve {

// The message of `status` as clients get it: UTF-8, and cut to what fits a trailer everywhere, for
// it may quote what a client or a file says.
std::string MessageOf(const absl::Status& status);

// The codes have the same numbers, the message is MessageOf(). What IsOverload() has a
// google.rpc.RetryInfo in its details.
grpc::Status ToGrpcStatus(const absl::Status& status);

// How long to wait before another try, where that can help; else 0.
std::chrono::milliseconds RetryDelay(const absl::Status& status);

// Tells the client's retry policy how long to wait, if `status` IsOverload(). Call before the
// call is finished, once.
void AddRetryPushback(const absl::Status& status, grpc::ServerContextBase& context);

}  // namespace evaserve
