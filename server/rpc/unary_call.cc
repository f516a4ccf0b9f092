#include "server/rpc/unary_call.h"

#include <utility>

#include "server/rpc/call_info.h"
#include "server/rpc/grpc_status.h"

namespace evaserve {

UnaryCall* UnaryCall::Start(grpc::CallbackServerContext& context,
                            std::unique_ptr<RequestScope> scope, absl::StatusOr<Work> work) {
  auto* call = new UnaryCall(context, std::move(scope));
  if (work.ok()) {
    call->Run(*std::move(work));
  } else {
    call->End(work.status());
  }
  return call;
}

UnaryCall::UnaryCall(grpc::CallbackServerContext& context, std::unique_ptr<RequestScope> scope)
    : context_(context), scope_(std::move(scope)), deadline_(DeadlineOf(context)) {}

void UnaryCall::Run(Work work) {
  engine_ = std::move(work.engine);
  // gRPC calls OnCancel() and OnDone() only once it has the reactor, that is after this function.
  group_ = RequestGroup::Start(*engine_, std::move(work.requests),
                               [this, answer = std::move(work.answer)](
                                   absl::Status status, const std::vector<GroupResult>& results) {
                                 for (const GroupResult& result : results)
                                   scope_->Add(result.completion);
                                 if (status.ok()) answer(results);
                                 End(std::move(status));
                               });
}

void UnaryCall::End(absl::Status status) {
  scope_->status = TellExpired(std::move(status), deadline_);
  AddRetryPushback(scope_->status, context_);
  Finish(ToGrpcStatus(scope_->status));  // may delete this
}

void UnaryCall::OnCancel() {
  if (group_ != nullptr) group_->Cancel();
}

}  // namespace evaserve
