#include "server/rpc/tensor_call.h"

#include <algorithm>
#include <utility>

namespace evaserve {

TensorCall* TensorCall::Start(grpc::CallbackServerContext& context,
                              std::unique_ptr<RequestScope> scope, absl::StatusOr<Work> work) {
  auto* call = new TensorCall(context, std::move(scope));
  absl::Status status = work.ok() ? call->Submit(*std::move(work)) : work.status();
  if (!status.ok()) call->End(std::move(status));
  return call;
}

absl::Status TensorCall::Submit(Work work) {
  engine_ = std::move(work.engine);
  answer_ = std::move(work.answer);
  work.request.deadline = std::min(work.request.deadline, deadline());
  // gRPC calls OnCancel() and OnDone() only once it has the reactor, that is after Start().
  work.request.done = [this](Completion completion, TensorModel::Outputs outputs) {
    scope().Add(completion);
    if (completion.status.ok()) answer_(completion, std::move(outputs));
    EndBatch(std::move(completion.status));
  };
  const absl::StatusOr<uint64_t> id = engine_->Submit(std::move(work.request));
  if (!id.ok()) return id.status();
  id_ = *id;
  return absl::OkStatus();
}

void TensorCall::OnCancel() {
  is_cancelled_ = true;
  if (id_ != 0) engine_->Cancel(id_);  // a refused call has no engine
}

void TensorCall::EndBatch(absl::Status status) {
  // A batch that others wait for is not interrupted, but nobody hears of this one's end.
  if (is_cancelled_) status = absl::CancelledError("the client has gone");
  End(std::move(status));
}

}  // namespace evaserve
