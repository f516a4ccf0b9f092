#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "server/engine/tensor_engine.h"
#include "server/rpc/logged_call.h"

namespace evaserve {

// The reactor of a call that is answered by one message, made from the outputs of one request to a
// model of tensors. Cancelling the call takes its request out of the queue.
class TensorCall : public LoggedCall {
 public:
  struct Work {
    std::shared_ptr<TensorEngine> engine;
    TensorRequest request;  // without `done`; what its inputs refer to lives as long as `answer`
    // Fills the response. Called at most once, on any thread, before the call ends.
    std::function<void(const Completion& completion, TensorModel::Outputs outputs)> answer;
  };

  // Runs `work`, or ends the call with its error.
  static TensorCall* Start(grpc::CallbackServerContext& context,
                           std::unique_ptr<RequestScope> scope, absl::StatusOr<Work> work);

 private:
  using LoggedCall::LoggedCall;

  absl::Status Submit(Work work);
  void EndBatch(absl::Status status);
  void OnCancel() override;

  std::shared_ptr<TensorEngine> engine_;
  std::function<void(const Completion& completion, TensorModel::Outputs outputs)> answer_;
  uint64_t id_ = 0;  // of the engine; 0: the request was refused
  std::atomic<bool> is_cancelled_{false};
};

}  // namespace evaserve
