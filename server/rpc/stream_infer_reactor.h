#pragma once

#include <memory>

#include "inference/open_inference.pb.h"
#include "server/repository/model_repository.h"
#include "server/rpc/answer_stream.h"
#include "server/rpc/authorizer.h"
#include "server/rpc/request_log.h"

namespace evaserve {

// The reactor of one ModelStreamInfer call. A request for one generation is answered in pieces, any
// other whole. One that fails is answered by a message and the stream goes on, unless the client
// sent the metadata triton_grpc_error: true; then the call ends with the error's status.
//
// At most kMaxOpen requests are in flight; further ones are not read until one has ended.
class StreamInferReactor
    : public AnswerStream<inference::ModelInferRequest, inference::ModelStreamInferResponse> {
 public:
  static constexpr size_t kMaxOpen = 64;

  static StreamInferReactor* Start(grpc::CallbackServerContext& context, ModelRepository& models,
                                   RequestLog& log, const Authorizer& authorizer);

 private:
  class OpenRequest;

  StreamInferReactor(grpc::CallbackServerContext& context, ModelRepository& models, RequestLog& log,
                     const Authorizer& authorizer);

  void OnRequest(const inference::ModelInferRequest& request) override;
  bool MayRead() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) override {
    return num_open() < kMaxOpen;
  }

  ModelRepository& models_;
  RequestLog& log_;
  const Authorizer& authorizer_;
};

}  // namespace evaserve
