#pragma once

#include "evaserve/v1/inference.grpc.pb.h"
#include "server/repository/model_repository.h"
#include "server/rpc/authorizer.h"
#include "server/rpc/request_log.h"

namespace evaserve {

// evaserve.v1.Inference: docs/api.md. Thread-safe; never blocks.
class EvaserveService final : public v1::Inference::CallbackService {
 public:
  // All must outlive the server.
  EvaserveService(ModelRepository& models, RequestLog& log, const Authorizer& authorizer)
      : models_(models), log_(log), authorizer_(authorizer) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
  grpc::ServerBidiReactor<v1::GenerateStreamRequest, v1::GenerateStreamResponse>* GenerateStream(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context,
                                  const v1::ScoreRequest* request,
                                  v1::ScoreResponse* response) override;
  grpc::ServerUnaryReactor* Embed(grpc::CallbackServerContext* context,
                                  const v1::EmbedRequest* request,
                                  v1::EmbedResponse* response) override;
  grpc::ServerUnaryReactor* Classify(grpc::CallbackServerContext* context,
                                     const v1::ClassifyRequest* request,
                                     v1::ClassifyResponse* response) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;

 private:
  ModelRepository& models_;
  RequestLog& log_;
  const Authorizer& authorizer_;
};

}  // namespace evaserve
