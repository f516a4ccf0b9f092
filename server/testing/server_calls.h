#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>
#include <grpcpp/support/sync_stream.h>

#include <cstdint>
#include <memory>
#include <string>

#include "server/testing/fake_model_server.h"

namespace evaserve {

// One prompt, one token.
grpc::Status GenerateOne(FakeModelServer& server);

// Asks for a model anew, with other settings.
grpc::Status LoadAnew(FakeModelServer& server, const std::string& model);

// A stream that the model has begun to answer and will go on with for as long as it may.
struct BusyStream {
  explicit BusyStream(FakeModelServer& server, uint64_t max_new_tokens = 4000);

  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader;
};

}  // namespace evaserve
