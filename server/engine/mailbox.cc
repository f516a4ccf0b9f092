#include "server/engine/mailbox.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/durations.h"

namespace evaserve {

absl::Status Mailbox::Submit(std::unique_ptr<ActiveRequest> request) {
  const int64_t tokens = request->prompt_tokens();
  absl::MutexLock lock(&mutex_);
  if (draining_) return absl::UnavailableError("the server is shutting down");
  if (state_.waiting >= limits_.max_waiting) {
    return QueueFullError(
        limits_.overload_status,
        absl::StrCat("too many requests are waiting, the limit is ", limits_.max_waiting));
  }
  if (state_.waiting > 0 && state_.waiting_tokens + tokens > limits_.max_waiting_tokens) {
    return QueueFullError(
        limits_.overload_status,
        absl::StrCat("requests with ", state_.waiting_tokens, " tokens are waiting, ", tokens,
                     " more would pass the limit of ", limits_.max_waiting_tokens));
  }
  mail_.submitted.push_back(std::move(request));
  ++state_.waiting;
  state_.waiting_tokens += tokens;
  ++num_in_flight_;
  return absl::OkStatus();
}

void Mailbox::Cancel(RequestId id) {
  absl::MutexLock lock(&mutex_);
  if (!mail_.closed) mail_.cancelled.push_back(id);
}

void Mailbox::Resume(RequestId id) {
  absl::MutexLock lock(&mutex_);
  if (!mail_.closed) mail_.resumed.push_back(id);
}

void Mailbox::Append(Piece piece) {
  absl::MutexLock lock(&mutex_);
  if (!mail_.closed) mail_.pieces.push_back(std::move(piece));
}

void Mailbox::Drain() {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
}

void Mailbox::Close() {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
  mail_.closed = true;
}

bool Mailbox::WaitUntilIdle(TimePoint deadline) {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(this, &Mailbox::IsIdle), Until(deadline));
}

EngineState Mailbox::state() const {
  absl::MutexLock lock(&mutex_);
  return state_;
}

bool Mailbox::HasMail() const {
  return mail_.closed || !mail_.submitted.empty() || !mail_.pieces.empty() ||
         !mail_.cancelled.empty() || !mail_.resumed.empty();
}

Mailbox::Mail Mailbox::Take(TimePoint deadline) {
  absl::MutexLock lock(&mutex_);
  if (!HasMail() && deadline != TimePoint::min()) {
    mutex_.AwaitWithTimeout(absl::Condition(this, &Mailbox::HasMail), Until(deadline));
  }
  Mail mail = std::exchange(mail_, {});
  mail_.closed = mail.closed;
  return mail;
}

void Mailbox::Publish(const EngineState& state, int num_ended) {
  absl::MutexLock lock(&mutex_);
  state_ = state;
  for (const auto& request : mail_.submitted) {
    ++state_.waiting;
    state_.waiting_tokens += request->prompt_tokens();
  }
  num_in_flight_ -= num_ended;
}

}  // namespace evaserve
