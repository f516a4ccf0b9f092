#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <cstdint>
#include <memory>

#include "inference/open_inference.pb.h"
#include "server/engine/tensor_engine.h"
#include "server/rpc/request_log.h"
#include "server/rpc/tensor_plan.h"

namespace evaserve {

// The reactor of a ModelInfer call to a model of tensors. Owned by gRPC: it lives until OnDone().
// Cancelling the call takes its request out of the queue.
class TensorCall : public grpc::ServerUnaryReactor {
 public:
  // Answers `request` by `response`; both live as long as the call.
  static TensorCall* Start(grpc::CallbackServerContext& context,
                           std::unique_ptr<RequestScope> scope,
                           std::shared_ptr<TensorEngine> engine,
                           const inference::ModelInferRequest& request,
                           inference::ModelInferResponse& response);

 private:
  TensorCall(grpc::CallbackServerContext& context, std::unique_ptr<RequestScope> scope,
             std::shared_ptr<TensorEngine> engine, inference::ModelInferResponse& response);

  absl::Status Submit(const inference::ModelInferRequest& request);
  void End(absl::Status status);

  void OnCancel() override;
  void OnDone() override { delete this; }

  grpc::CallbackServerContext& context_;
  const std::unique_ptr<RequestScope> scope_;
  const TimePoint deadline_;
  const std::shared_ptr<TensorEngine> engine_;
  inference::ModelInferResponse& response_;
  TensorPlan plan_;
  uint64_t id_ = 0;  // of the engine; 0: none
  std::atomic<bool> is_cancelled_{false};
};

}  // namespace evaserve
