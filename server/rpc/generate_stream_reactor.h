#pragma once

#include <cstdint>
#include <map>
#include <memory>

#include "evaserve/v1/inference.pb.h"
#include "server/repository/model_repository.h"
#include "server/rpc/answer_stream.h"
#include "server/rpc/authorizer.h"
#include "server/rpc/request_log.h"

namespace evaserve {

// The reactor of one GenerateStream call: prompts, told apart by the client's index, begin, grow
// and are cancelled. One that fails is answered by an error and the stream goes on; what breaks the
// protocol of the stream itself ends the call.
//
// At most kMaxPrompts are open; one more is refused, for reading must go on: a piece may be next.
class GenerateStreamReactor
    : public AnswerStream<v1::GenerateStreamRequest, v1::GenerateStreamResponse> {
 public:
  static constexpr size_t kMaxPrompts = 256;

  static GenerateStreamReactor* Start(grpc::CallbackServerContext& context, ModelRepository& models,
                                      RequestLog& log, const Authorizer& authorizer);

 private:
  class Prompt;

  GenerateStreamReactor(grpc::CallbackServerContext& context, ModelRepository& models,
                        RequestLog& log, const Authorizer& authorizer);

  void OnRequest(const v1::GenerateStreamRequest& request) override;
  void OnRequestsEnd() override;
  // Refused prompts are open until the client has read why.
  bool MayRead() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) override {
    return num_open() < 2 * kMaxPrompts;
  }
  void OnLast(const Answer& answer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) override;

  void Begin(uint64_t index, const v1::BeginPrompt& begin);
  // Ends the call for a message that is against the protocol; the log hears of it.
  void Reject(const absl::Status& status);
  // Null if it has not begun or has ended.
  std::shared_ptr<Prompt> Find(uint64_t index);

  ModelRepository& models_;
  RequestLog& log_;
  const Authorizer& authorizer_;
  std::map<uint64_t, std::shared_ptr<Prompt>> prompts_ ABSL_GUARDED_BY(mutex_);  // open, by index
};

}  // namespace evaserve
