#include "server/rpc/logged_call.h"

#include "server/rpc/call_info.h"
#include "server/rpc/grpc_status.h"

namespace evaserve {

LoggedCall::LoggedCall(grpc::CallbackServerContext& context, std::unique_ptr<RequestScope> scope)
    : context_(context), scope_(std::move(scope)), deadline_(DeadlineOf(context)) {}

void LoggedCall::End(absl::Status status) {
  scope_->status = TellExpired(std::move(status), deadline_);
  scope_->CountEnd();
  AddRetryPushback(scope_->status, context_);
  Finish(ToGrpcStatus(scope_->status));  // may delete this
}

}  // namespace evaserve
