#include "server/rpc/unary_call.h"

#include <utility>

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

void UnaryCall::Run(Work work) {
  engine_ = std::move(work.engine);
  // gRPC calls OnCancel() and OnDone() only once it has the reactor, that is after this function.
  group_ = RequestGroup::Start(*engine_, std::move(work.requests),
                               [this, answer = std::move(work.answer)](
                                   absl::Status status, const std::vector<GroupResult>& results) {
                                 for (const GroupResult& result : results)
                                   scope().Add(result.completion);
                                 if (status.ok()) answer(results);
                                 End(std::move(status));
                               });
}

void UnaryCall::OnCancel() {
  if (group_ != nullptr) group_->Cancel();
}

}  // namespace evaserve
