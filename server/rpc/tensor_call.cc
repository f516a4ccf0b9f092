#include "server/rpc/tensor_call.h"

#include <utility>

namespace evaserve {

TensorCall* TensorCall::Start(grpc::CallbackServerContext& context,
                              std::unique_ptr<RequestScope> scope,
                              std::shared_ptr<TensorEngine> engine,
                              const inference::ModelInferRequest& request,
                              inference::ModelInferResponse& response) {
  auto* call = new TensorCall(context, std::move(scope), std::move(engine), response);
  if (absl::Status status = call->Submit(request); !status.ok()) call->End(std::move(status));
  return call;
}

TensorCall::TensorCall(grpc::CallbackServerContext& context, std::unique_ptr<RequestScope> scope,
                       std::shared_ptr<TensorEngine> engine,
                       inference::ModelInferResponse& response)
    : LoggedCall(context, std::move(scope)), engine_(std::move(engine)), response_(response) {}

absl::Status TensorCall::Submit(const inference::ModelInferRequest& request) {
  absl::StatusOr<TensorPlan> plan = PlanTensors(request, engine_->info(), deadline());
  if (!plan.ok()) return plan.status();
  plan_ = *std::move(plan);
  scope().input_bytes = plan_.input_bytes();
  TensorRequest work = MakeRequest(plan_);
  // gRPC calls OnCancel() and OnDone() only once it has the reactor, that is after Start().
  work.done = [this](Completion completion, TensorModel::Outputs outputs) {
    scope().Add(completion);
    if (completion.status.ok()) {
      FillTensors(plan_, engine_->info(), std::move(outputs), response_);
    }
    EndBatch(std::move(completion.status));
  };
  const absl::StatusOr<uint64_t> id = engine_->Submit(std::move(work));
  if (!id.ok()) return id.status();
  id_ = *id;
  return absl::OkStatus();
}

void TensorCall::OnCancel() {
  is_cancelled_ = true;
  engine_->Cancel(id_);
}

void TensorCall::EndBatch(absl::Status status) {
  // A batch that runs is not interrupted, but nobody hears of its end.
  if (is_cancelled_) status = absl::CancelledError("the client has gone");
  End(std::move(status));
}

}  // namespace evaserve
