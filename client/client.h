#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/support/channel_arguments.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/call_options.h"
#include "client/connection.h"
#include "client/generate_streams.h"
#include "evaserve/v1/inference.grpc.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "inference/open_inference.grpc.pb.h"

namespace evaserve {

// A connection to an evaserve server. Requests and answers are the messages of
// proto/evaserve/v1/inference.proto; errors carry the server's status code and message, and
// Unavailable if it cannot be reached.
//
// Thread-safe. Connects on the first call, and again whenever the connection was lost.
class Client {
 public:
  // `target` is HOST:PORT or any name that gRPC resolves; the connection is not encrypted.
  explicit Client(const std::string& target);
  // For a channel of your own. See MakeChannelArguments(). `token`, if not empty, goes with every
  // call.
  explicit Client(std::shared_ptr<grpc::Channel> channel, std::string token = "");

  // InvalidArgument for a file that cannot be read or is no PEM, for a certificate without its key,
  // and for a token that could be overheard.
  static absl::StatusOr<Client> Connect(const std::string& target,
                                        const ConnectionOptions& options);

  GenerateStream Generate(const v1::GenerateRequest& request, const CallOptions& options = {});

  PromptStream GeneratePrompts(const CallOptions& options = {});

  absl::StatusOr<v1::ScoreResponse> Score(const v1::ScoreRequest& request,
                                          const CallOptions& options = {});

  absl::StatusOr<v1::EmbedResponse> Embed(const v1::EmbedRequest& request,
                                          const CallOptions& options = {});

  absl::StatusOr<v1::ClassifyResponse> Classify(const v1::ClassifyRequest& request,
                                                const CallOptions& options = {});

  // A call of the Open Inference Protocol, for models of tensors. See also translation.h.
  absl::StatusOr<inference::ModelInferResponse> Infer(const inference::ModelInferRequest& request,
                                                      const CallOptions& options = {});

  // What clients of the Open Inference Protocol are told of `model`; empty for the only one.
  absl::StatusOr<inference::ModelConfig> ModelConfig(const std::string& model = "",
                                                     const CallOptions& options = {});

  absl::StatusOr<std::vector<v1::Model>> ListModels(const CallOptions& options = {});

  // Whether `service`, a model's name or empty for the whole server, takes requests. NotFound if
  // the server does not know it.
  absl::StatusOr<bool> IsServing(const std::string& service = "", const CallOptions& options = {});

  // Waits until `service` takes requests, also for a server that is yet to start. Ends with
  // DeadlineExceeded or Cancelled only, or Unimplemented if the server has no health service.
  absl::Status WaitUntilServing(const std::string& service = "", const CallOptions& options = {});

 private:
  std::string token_;
  std::unique_ptr<v1::Inference::Stub> inference_;
  std::unique_ptr<inference::GRPCInferenceService::Stub> open_inference_;
  std::unique_ptr<grpc::health::v1::Health::Stub> health_;
};

// What Client sets on its channel: no limit on the size of answers, quick reconnection.
grpc::ChannelArguments MakeChannelArguments();

}  // namespace evaserve
