#pragma once

#include <grpcpp/support/sync_stream.h>

#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "evaserve/v1/inference.grpc.pb.h"

namespace evaserve {

class CallContext;

// The answers of a call that is on its way. Outlives neither its CallOptions::cancellation nor a
// move.
template <typename Stream, typename Response>
class ResponseStream {
 public:
  ResponseStream(std::unique_ptr<CallContext> context, std::unique_ptr<Stream> stream);
  // Cancels what has not come yet.
  ~ResponseStream();

  ResponseStream(ResponseStream&&) noexcept;
  ResponseStream& operator=(ResponseStream&&) = delete;

  // Waits for the next message; nullopt at the end, whether good or bad.
  std::optional<Response> Next();

  // How the call ended, with the server's message. Call it once, after Next() returned nullopt or
  // after Cancel().
  absl::Status Finish();

  // Ends the call with Cancelled, from any thread.
  void Cancel();

 protected:
  Stream& stream() { return *stream_; }

 private:
  std::unique_ptr<CallContext> context_;
  std::unique_ptr<Stream> stream_;  // null once finished
};

using GenerationReader = grpc::ClientReader<v1::GenerateResponse>;
using PromptReaderWriter =
    grpc::ClientReaderWriter<v1::GenerateStreamRequest, v1::GenerateStreamResponse>;

extern template class ResponseStream<GenerationReader, v1::GenerateResponse>;
extern template class ResponseStream<PromptReaderWriter, v1::GenerateStreamResponse>;

// A generation on its way:
//
//   GenerateStream stream = client.Generate(request);
//   while (std::optional<v1::GenerateResponse> response = stream.Next()) Show(response->text());
//   if (absl::Status status = stream.Finish(); !status.ok()) Complain(status);
//
// Not thread-safe, except Cancel().
class GenerateStream : public ResponseStream<GenerationReader, v1::GenerateResponse> {
 public:
  using ResponseStream::ResponseStream;
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
// One thread may send while another one reads; Cancel() is for any.
class PromptStream : public ResponseStream<PromptReaderWriter, v1::GenerateStreamResponse> {
 public:
  using ResponseStream::ResponseStream;

  // False once the call has ended; Finish() tells how.
  bool Send(const v1::GenerateStreamRequest& message) { return stream().Write(message); }

  // After the last Send(): the server ends the call when all prompts have ended.
  void EndSending() { stream().WritesDone(); }
};

}  // namespace evaserve
