#pragma once

#include <grpcpp/channel.h>

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "evaserve/v1/inference.grpc.pb.h"
#include "inference/open_inference.grpc.pb.h"
#include "server/server.h"
#include "tests/fakes/fake_model.h"
#include "tests/fakes/fake_tensor_model.h"

namespace evaserve {

// The real server in the test's process, on free ports of 127.0.0.1, with one FakeModel named
// "fake".
class FakeModelServer {
 public:
  // What a test may change before the start.
  struct Options {
    FakeModel::Options model{};
    Config config{};
    std::function<void()> on_failure = [] {};
    bool serves_tensors = false;  // also a FakeTensorModel named "tensors"
    bool serves_images = false;   // also a FakeImageModel named "images"
    // Called before each load, on the thread that loads. If there is one, the server is listening
    // and no more when the constructor returns.
    std::function<void(const std::string& model)> before_load = nullptr;
  };

  FakeModelServer() : FakeModelServer(Options()) {}
  explicit FakeModelServer(Options options);

  Server& server() { return *server_; }
  FakeModelControl& control() { return *control_; }
  FakeTensorControl& tensor_control() { return *tensor_control_; }
  FakeTensorControl& image_control() { return *image_control_; }

  // A connection of its own.
  std::shared_ptr<grpc::Channel> Connect() const;
  v1::Inference::Stub& evaserve() { return *evaserve_; }
  inference::GRPCInferenceService::Stub& open_inference() { return *open_inference_; }

  // Of the only version of `model`.
  inference::ModelStatistics Statistics(const std::string& model);

  // The body of an HTTP answer, after its code and a line feed: "200\nok\n".
  std::string Get(const std::string& path) const;

  // The same, once it begins with `start`; after 10 s, whatever it is.
  std::string GetOnce(const std::string& path, const std::string& start) const;

  // The value of a line of /metrics that begins with `metric`, "name{label=\"value\"}"; 0 if none
  // does.
  double MetricValue(const std::string& metric) const;

  // Waits until /metrics shows `value`, for at most 10 s; true if it came to that. What a call
  // counts is there only once the server has seen its end, a little after the client.
  bool WaitForMetric(const std::string& metric, double value) const;

 private:
  absl::StatusOr<AnyModel> Load(const std::string& name);

  std::function<void(const std::string& model)> before_load_;
  std::map<std::string, AnyModel> models_;  // that are not loaded yet
  std::shared_ptr<FakeModelControl> control_;
  std::shared_ptr<FakeTensorControl> tensor_control_, image_control_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<v1::Inference::Stub> evaserve_;
  std::unique_ptr<inference::GRPCInferenceService::Stub> open_inference_;
};

// What most tests ask for: greedy, `max_new_tokens` tokens.
v1::GenerateRequest GreedyRequest(const std::string& prompt, uint64_t max_new_tokens);

// All text of a stream, and its last message and status.
struct GeneratedText {
  std::string text;
  int num_messages = 0;
  v1::GenerateResponse last;
  grpc::Status status;
};
GeneratedText ReadAll(grpc::ClientReader<v1::GenerateResponse>& reader);

}  // namespace evaserve
