#include "server/testing/server_calls.h"

#include <gtest/gtest.h>

namespace evaserve {

grpc::Status GenerateOne(FakeModelServer& server) {
  grpc::ClientContext context;
  return ReadAll(*server.evaserve().Generate(&context, GreedyRequest("ab", 1))).status;
}

grpc::Status LoadAnew(FakeModelServer& server, const std::string& model) {
  inference::RepositoryModelLoadRequest request;
  request.set_model_name(model);
  (*request.mutable_parameters())["config"].set_string_param(R"({"max_running": 3})");
  inference::RepositoryModelLoadResponse response;
  grpc::ClientContext context;
  return server.open_inference().RepositoryModelLoad(&context, request, &response);
}

BusyStream::BusyStream(FakeModelServer& server, uint64_t max_new_tokens)
    : reader(server.evaserve().Generate(&context, GreedyRequest("ab", max_new_tokens))) {
  v1::GenerateResponse message;
  EXPECT_TRUE(reader->Read(&message));
}

}  // namespace evaserve
