#pragma once

#include <string>
#include <utility>

#include "inference/open_inference.grpc.pb.h"
#include "server/repository/model_repository.h"
#include "server/rpc/request_log.h"
#include "server/rpc/serving_state.h"

namespace evaserve {

// inference.GRPCInferenceService: docs/api.md. Thread-safe; never blocks.
class OpenInferenceService final : public inference::GRPCInferenceService::CallbackService {
 public:
  // All references must outlive the server.
  OpenInferenceService(ModelRepository& models, RequestLog& log, const ServingState& state,
                       std::string server_version)
      : models_(models), log_(log), state_(state), server_version_(std::move(server_version)) {}

  grpc::ServerUnaryReactor* ServerLive(grpc::CallbackServerContext* context,
                                       const inference::ServerLiveRequest* request,
                                       inference::ServerLiveResponse* response) override;
  grpc::ServerUnaryReactor* ServerReady(grpc::CallbackServerContext* context,
                                        const inference::ServerReadyRequest* request,
                                        inference::ServerReadyResponse* response) override;
  grpc::ServerUnaryReactor* ModelReady(grpc::CallbackServerContext* context,
                                       const inference::ModelReadyRequest* request,
                                       inference::ModelReadyResponse* response) override;
  grpc::ServerUnaryReactor* ServerMetadata(grpc::CallbackServerContext* context,
                                           const inference::ServerMetadataRequest* request,
                                           inference::ServerMetadataResponse* response) override;
  grpc::ServerUnaryReactor* ModelMetadata(grpc::CallbackServerContext* context,
                                          const inference::ModelMetadataRequest* request,
                                          inference::ModelMetadataResponse* response) override;
  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* context,
                                       const inference::ModelInferRequest* request,
                                       inference::ModelInferResponse* response) override;
  grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>*
  ModelStreamInfer(grpc::CallbackServerContext* context) override;

 private:
  // Ends a call whose answer is ready, or not to be had.
  grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext& context, const char* method,
                                   const absl::Status& status);

  ModelRepository& models_;
  RequestLog& log_;
  const ServingState& state_;
  const std::string server_version_;
};

}  // namespace evaserve
