#include "client/client.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <limits>
#include <utility>

#include "absl/time/clock.h"
#include "client/call_context.h"
#include "client/channel.h"

namespace evaserve {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

// Between two watches. gRPC waits for a server that is away; this is for one that refuses at once.
constexpr absl::Duration kWatchPause = absl::Milliseconds(50);

// Makes a unary call through `method` of `stub`.
template <typename Response, typename Stub, typename Request, typename Method>
absl::StatusOr<Response> Call(Stub& stub, Method method, const Request& request,
                              CallContext context) {
  Response response;
  const grpc::Status status = (stub.*method)(&context.grpc, request, &response);
  if (!status.ok()) return ToAbslStatus(status);
  return response;
}

// Follows `service` until it serves. Ok once it does, otherwise how the stream ended.
absl::Status WatchUntilServing(grpc::health::v1::Health::Stub& stub, const std::string& service,
                               CallContext context) {
  HealthCheckRequest request;
  request.set_service(service);
  context.grpc.set_wait_for_ready(true);
  const auto reader = stub.Watch(&context.grpc, request);
  HealthCheckResponse response;
  while (reader->Read(&response)) {
    if (response.status() != HealthCheckResponse::SERVING) continue;
    context.grpc.TryCancel();
    reader->Finish();
    return absl::OkStatus();
  }
  const grpc::Status status = reader->Finish();
  return status.ok() ? absl::UnavailableError("the server ended the watch") : ToAbslStatus(status);
}

}  // namespace

grpc::ChannelArguments MakeChannelArguments() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(std::numeric_limits<int>::max());
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  return arguments;
}

Client::Client(const std::string& target)
    : Client(grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(),
                                       MakeChannelArguments())) {}

Client::Client(std::shared_ptr<grpc::Channel> channel, std::string token)
    : token_(std::move(token)),
      inference_(v1::Inference::NewStub(channel)),
      open_inference_(inference::GRPCInferenceService::NewStub(channel)),
      health_(grpc::health::v1::Health::NewStub(channel)) {}

absl::StatusOr<Client> Client::Connect(const std::string& target,
                                       const ConnectionOptions& options) {
  auto channel = MakeChannel(target, options, MakeChannelArguments());
  if (!channel.ok()) return channel.status();
  return Client(*std::move(channel), options.token);
}

GenerateStream Client::Generate(const v1::GenerateRequest& request, const CallOptions& options) {
  auto context = std::make_unique<CallContext>(options, token_);
  auto reader = inference_->Generate(&context->grpc, request);
  return GenerateStream(std::move(context), std::move(reader));
}

PromptStream Client::GeneratePrompts(const CallOptions& options) {
  auto context = std::make_unique<CallContext>(options, token_);
  auto stream = inference_->GenerateStream(&context->grpc);
  return PromptStream(std::move(context), std::move(stream));
}

absl::StatusOr<v1::ScoreResponse> Client::Score(const v1::ScoreRequest& request,
                                                const CallOptions& options) {
  return Call<v1::ScoreResponse>(*inference_, &v1::Inference::Stub::Score, request,
                                 CallContext(options, token_));
}

absl::StatusOr<v1::EmbedResponse> Client::Embed(const v1::EmbedRequest& request,
                                                const CallOptions& options) {
  return Call<v1::EmbedResponse>(*inference_, &v1::Inference::Stub::Embed, request,
                                 CallContext(options, token_));
}

absl::StatusOr<v1::ClassifyResponse> Client::Classify(const v1::ClassifyRequest& request,
                                                      const CallOptions& options) {
  return Call<v1::ClassifyResponse>(*inference_, &v1::Inference::Stub::Classify, request,
                                    CallContext(options, token_));
}

absl::StatusOr<inference::ModelInferResponse> Client::Infer(
    const inference::ModelInferRequest& request, const CallOptions& options) {
  return Call<inference::ModelInferResponse>(*open_inference_,
                                             &inference::GRPCInferenceService::Stub::ModelInfer,
                                             request, CallContext(options, token_));
}

absl::StatusOr<inference::ModelConfig> Client::ModelConfig(const std::string& model,
                                                           const CallOptions& options) {
  inference::ModelConfigRequest request;
  request.set_name(model);
  auto response = Call<inference::ModelConfigResponse>(
      *open_inference_, &inference::GRPCInferenceService::Stub::ModelConfig, request,
      CallContext(options, token_));
  if (!response.ok()) return response.status();
  return response->config();
}

absl::StatusOr<std::vector<v1::Model>> Client::ListModels(const CallOptions& options) {
  auto response =
      Call<v1::ListModelsResponse>(*inference_, &v1::Inference::Stub::ListModels,
                                   v1::ListModelsRequest(), CallContext(options, token_));
  if (!response.ok()) return response.status();
  return std::vector<v1::Model>(response->models().begin(), response->models().end());
}

absl::StatusOr<bool> Client::IsServing(const std::string& service, const CallOptions& options) {
  HealthCheckRequest request;
  request.set_service(service);
  auto response = Call<HealthCheckResponse>(*health_, &grpc::health::v1::Health::Stub::Check,
                                            request, CallContext(options, token_));
  if (!response.ok()) return response.status();
  return response->status() == HealthCheckResponse::SERVING;
}

absl::Status Client::WaitUntilServing(const std::string& service, const CallOptions& options) {
  absl::Status status = WatchUntilServing(*health_, service, CallContext(options, token_));
  while (absl::IsUnavailable(status)) {
    absl::SleepFor(kWatchPause);
    status = WatchUntilServing(*health_, service, CallContext(options, token_));
  }
  return status;
}

}  // namespace evaserve
