#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/support/channel_arguments.h>
#include <grpcpp/support/sync_stream.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/call_options.h"
#include "client/connection.h"
#include "evaserve/v1/inference.grpc.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "inference/open_inference.grpc.pb.h"

namespace evaserve {

class CallContext;

// A generation on its way:
//
//   GenerateStream stream = client.Generate(request);
//   while (std::optional<v1::GenerateResponse> response = stream.Next()) Show(response->text());
//   if (absl::Status status = stream.Finish(); !status.ok()) Complain(status);
//
// Not thread-safe, except Cancel(). Outlives neither its CallOptions::cancellation nor a move.
class GenerateStream {
 public:
  GenerateStream(std::unique_ptr<CallContext> context,
                 std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader);
  // Cancels what has not come yet.
  ~GenerateStream();

  GenerateStream(GenerateStream&&) noexcept;
  GenerateStream& operator=(GenerateStream&&) = delete;

  // Waits for the next message; nullopt at the end, whether good or bad.
  std::optional<v1::GenerateResponse> Next();

  // How the call ended, with the server's message. Call it once, after Next() returned nullopt or
  // after Cancel().
  absl::Status Finish();

  // Ends the call with Cancelled, from any thread.
  void Cancel();

 private:
  std::unique_ptr<CallContext> context_;
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader_;  // null once finished
};

// Many generations on one stream in both directions, their prompts whole or in pieces
// (docs/api.md):
//
//   PromptStream stream = client.GeneratePrompts();
//   for (const v1::GenerateStreamRequest& message : messages) stream.Send(message);
//   stream.EndSending();
//   while (std::optional<v1::GenerateStreamResponse> response = stream.Next()) Show(*response);
//   if (absl::Status status = stream.Finish(); !status.ok()) Complain(status);
//
// One thread may send while another one reads; Cancel() is for any. Outlives neither its
// CallOptions::cancellation nor a move.
class PromptStream {
 public:
  using Stream = grpc::ClientReaderWriter<v1::GenerateStreamRequest, v1::GenerateStreamResponse>;

  PromptStream(std::unique_ptr<CallContext> context, std::unique_ptr<Stream> stream);
  // Cancels what has not come yet.
  ~PromptStream();

  PromptStream(PromptStream&&) noexcept;
  PromptStream& operator=(PromptStream&&) = delete;

  // False once the call has ended; Finish() tells how.
  bool Send(const v1::GenerateStreamRequest& message);

  // After the last Send(): the server ends the call when all prompts have ended.
  void EndSending();

  // Waits for the next message; nullopt at the end, whether good or bad.
  std::optional<v1::GenerateStreamResponse> Next();

  // How the call ended, with the server's message. Call it once, after Next() returned nullopt or
  // after Cancel().
  absl::Status Finish();

  // Ends the call with Cancelled.
  void Cancel();

 private:
  std::unique_ptr<CallContext> context_;
  std::unique_ptr<Stream> stream_;  // null once finished
};

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
