#include "client/generate_streams.h"

#include <utility>

#include "client/call_context.h"

namespace evaserve {

template <typename Stream, typename Response>
ResponseStream<Stream, Response>::ResponseStream(std::unique_ptr<CallContext> context,
                                                 std::unique_ptr<Stream> stream)
    : context_(std::move(context)), stream_(std::move(stream)) {}

template <typename Stream, typename Response>
ResponseStream<Stream, Response>::ResponseStream(ResponseStream&&) noexcept = default;

template <typename Stream, typename Response>
ResponseStream<Stream, Response>::~ResponseStream() {
  if (stream_ == nullptr) return;
  Cancel();
  stream_->Finish();
}

template <typename Stream, typename Response>
std::optional<Response> ResponseStream<Stream, Response>::Next() {
  Response response;
  if (!stream_->Read(&response)) return std::nullopt;
  return response;
}

template <typename Stream, typename Response>
absl::Status ResponseStream<Stream, Response>::Finish() {
  const grpc::Status status = stream_->Finish();
  stream_ = nullptr;
  return ToAbslStatus(status);
}

template <typename Stream, typename Response>
void ResponseStream<Stream, Response>::Cancel() {
  context_->grpc.TryCancel();
}

template class ResponseStream<GenerationReader, v1::GenerateResponse>;
template class ResponseStream<PromptReaderWriter, v1::GenerateStreamResponse>;

}  // namespace evaserve
