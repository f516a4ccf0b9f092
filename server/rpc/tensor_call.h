#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "inference/open_inference.pb.h"
#include "server/engine/tensor_engine.h"
#include "server/rpc/logged_call.h"
#include "server/rpc/tensor_plan.h"

namespace evaserve {

// The reactor of a ModelInfer call to a model of tensors. Cancelling the call takes its request out
// of the queue.
class TensorCall : public LoggedCall {
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
  void EndBatch(absl::Status status);
  void OnCancel() override;

  const std::shared_ptr<TensorEngine> engine_;
  inference::ModelInferResponse& response_;
  TensorPlan plan_;
  uint64_t id_ = 0;  // of the engine; 0: none
  std::atomic<bool> is_cancelled_{false};
};

}  // namespace evaserve
