#include "server/rpc/generate_reactor.h"

#include <utility>

#include "server/rpc/call_info.h"
#include "server/rpc/grpc_status.h"

namespace evaserve {

GenerateReactor* GenerateReactor::Start(grpc::CallbackServerContext& context,
                                        std::unique_ptr<RequestScope> scope,
                                        absl::StatusOr<Work> work) {
  std::shared_ptr<GenerateReactor> reactor(new GenerateReactor(context, std::move(scope)));
  {
    absl::MutexLock lock(&reactor->mutex_);
    reactor->self_ = reactor;
  }
  if (work.ok()) {
    reactor->Submit(*std::move(work));
  } else {
    reactor->EndWith(work.status());
  }
  return reactor.get();
}

GenerateReactor::GenerateReactor(grpc::CallbackServerContext& context,
                                 std::unique_ptr<RequestScope> scope)
    : context_(context), deadline_(DeadlineOf(context)), scope_(std::move(scope)) {}

void GenerateReactor::Submit(Work work) {
  {
    absl::MutexLock lock(&mutex_);
    engine_ = work.engine;
    if (work.logprobs) pending_.ReportTokens(engine_->tokenizer());
  }
  work.request.deadline = deadline_;
  work.request.sink = shared_from_this();
  absl::StatusOr<std::shared_ptr<RequestHandle>> handle =
      work.engine->Submit(std::move(work.request));
  if (handle.ok()) {
    handle_.Set(*std::move(handle));
  } else {
    EndWith(handle.status());
  }
}

bool GenerateReactor::OnTokens(std::string_view text, std::span<const GeneratedToken> tokens) {
  Operation next;
  bool go_on;
  {
    absl::MutexLock lock(&mutex_);
    if (is_client_gone_) return true;
    pending_.Add(text, tokens);
    next = TakeNext();
    is_resting_ = pending_.bytes() >= kMaxPendingBytes;
    go_on = !is_resting_;
  }
  Start(next);
  return go_on;
}

void GenerateReactor::OnDone(Completion completion) {
  {
    absl::MutexLock lock(&mutex_);
    scope_->Add(completion);
    if (completion.status.ok()) {
      pending_.AddFinish(completion);
    }
  }
  EndWith(std::move(completion.status));
}

void GenerateReactor::EndWith(absl::Status status) {
  status = TellExpired(std::move(status), deadline_);
  AddRetryPushback(status, context_);
  Operation next;
  {
    absl::MutexLock lock(&mutex_);
    scope_->status = status;
    scope_->CountEnd();
    final_status_ = ToGrpcStatus(status);
    is_done_ = true;
    next = TakeNext();
  }
  Start(next);
}

void GenerateReactor::OnWriteDone(bool ok) {
  Operation next;
  bool resume = false;
  {
    absl::MutexLock lock(&mutex_);
    is_busy_ = false;
    is_client_gone_ = !ok;
    next = TakeNext();
    if (is_resting_ && pending_.bytes() <= kMaxPendingBytes / 2) {
      is_resting_ = false;
      resume = true;
    }
  }
  Start(next);
  if (!ok) handle_.Cancel();
  if (resume) handle_.Resume();
}

void GenerateReactor::OnWriteMayStart() {
  Operation next;
  {
    absl::MutexLock lock(&mutex_);
    pacer_.OnRetry();
    next = TakeNext();
  }
  Start(next);
}

void GenerateReactor::OnDone() {
  std::shared_ptr<GenerateReactor> self;  // may be the last, so it goes after the lock
  absl::MutexLock lock(&mutex_);
  // On this thread, while the server still waits for this call: the engine's own thread could not
  // destroy an engine, and what the scope reports to may go with the server.
  scope_.reset();
  engine_.reset();
  self = std::move(self_);
}

GenerateReactor::Operation GenerateReactor::TakeNext() {
  if (is_busy_) return Operation::kNone;
  if (pending_.empty() || is_client_gone_) {
    is_busy_ = is_done_;
    return is_done_ ? Operation::kFinish : Operation::kNone;
  }
  // The end is not kept waiting.
  const bool may_write =
      is_done_ || pacer_.TryStart([self = shared_from_this()] { self->OnWriteMayStart(); });
  if (!may_write) return Operation::kNone;

  pending_.MoveTo(writing_);
  is_busy_ = true;
  return is_done_ ? Operation::kWriteAndFinish : Operation::kWrite;
}

void GenerateReactor::Start(Operation operation) {
  switch (operation) {
    case Operation::kNone:
      return;
    case Operation::kWrite:
      return StartWrite(&writing_);
    case Operation::kWriteAndFinish:
      return StartWriteAndFinish(&writing_, grpc::WriteOptions(), final_status_);
    case Operation::kFinish:
      return Finish(final_status_);
  }
}

}  // namespace evaserve
