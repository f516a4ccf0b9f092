#include "client/call_context.h"

namespace evaserve {

absl::Status ToAbslStatus(const grpc::Status& status) {
  return {static_cast<absl::StatusCode>(status.error_code()), status.error_message()};
}

void Cancellation::Cancel() {
  absl::MutexLock lock(&mutex_);
  cancelled_ = true;
  for (grpc::ClientContext* context : running_) context->TryCancel();
}

bool Cancellation::cancelled() const {
  absl::MutexLock lock(&mutex_);
  return cancelled_;
}

void Cancellation::Add(grpc::ClientContext* context) {
  absl::MutexLock lock(&mutex_);
  running_.insert(context);
  if (cancelled_) context->TryCancel();
}

void Cancellation::Remove(grpc::ClientContext* context) {
  absl::MutexLock lock(&mutex_);
  running_.erase(context);
}

CallContext::CallContext(const CallOptions& options, const std::string& token)
    : cancellation_(options.cancellation) {
  if (!token.empty()) grpc.AddMetadata("authorization", "Bearer " + token);
  if (options.deadline != absl::InfiniteFuture()) {
    grpc.set_deadline(absl::ToChronoTime(options.deadline));
  }
  if (cancellation_ != nullptr) cancellation_->Add(&grpc);
}

CallContext::~CallContext() {
  if (cancellation_ != nullptr) cancellation_->Remove(&grpc);
}

}  // namespace evaserve
