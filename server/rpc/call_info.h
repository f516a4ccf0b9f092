#pragma once

#include <grpcpp/server_context.h>

#include <string>

#include "absl/status/status.h"
#include "server/engine/request.h"
#include "server/rpc/request_identity.h"

namespace evaserve {

// The call's deadline on the clock of the engine; TimePoint::max() if it has none.
TimePoint DeadlineOf(const grpc::ServerContextBase& context);

// The first value of the client's metadata `key`, or empty.
std::string MetadataOf(const grpc::ServerContextBase& context, const char* key);

// The client's metadata `key`, or empty unless it has exactly one value.
std::string OnlyMetadataOf(const grpc::ServerContextBase& context, const char* key);

// What the client named the request, `field` or else metadata x-request-id, and metadata
// traceparent.
RequestIdentity RequestIdOf(const grpc::ServerContextBase& context, const std::string& field);

// How a request ended, told apart: gRPC cancels a call whose deadline passes just as one whose
// client has gone.
absl::Status TellExpired(absl::Status status, TimePoint deadline);

}  // namespace evaserve
