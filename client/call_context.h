#pragma once

#include <grpcpp/client_context.h>

#include <string>

#include "absl/status/status.h"
#include "client/call_options.h"

namespace evaserve {

// The server's code and message.
absl::Status ToAbslStatus(const grpc::Status& status);

// The gRPC side of CallOptions, for one call. Not thread-safe except TryCancel() of `grpc`.
class CallContext {
 public:
  // `token` may be empty.
  CallContext(const CallOptions& options, const std::string& token);
  ~CallContext();

  CallContext(const CallContext&) = delete;
  CallContext& operator=(const CallContext&) = delete;

  grpc::ClientContext grpc;

 private:
  Cancellation* const cancellation_;
};

}  // namespace evaserve
