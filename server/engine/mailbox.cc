#include "server/engine/mailbox.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/durations.h"

namespace evaserve {

absl::Status Mailbox::Submit(std::vector<std::unique_ptr<ActiveRequest>> requests) {
  const int64_t count = std::ssize(requests);
  int64_t tokens = 0;
  for (const auto& request : requests) tokens += request->prompt_tokens();
  if (absl::Status status = CheckCanEverFit(count, tokens); !status.ok()) return status;
  absl::MutexLock lock(&mutex_);
  if (draining_) return absl::UnavailableError("the server is shutting down");
  if (absl::Status status = CheckFitsNow(count, tokens); !status.ok()) return status;
  std::ranges::move(requests, std::back_inserter(mail_.submitted));
  state_.waiting += count;
  state_.waiting_tokens += tokens;
  num_in_flight_ += count;
  return absl::OkStatus();
}

absl::Status Mailbox::CheckCanEverFit(int64_t count, int64_t tokens) const {
  if (count <= 1) return absl::OkStatus();
  const int64_t most = int64_t{limits_.max_running} + limits_.waiting.max_waiting;
  if (count > most) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the request makes ", count, " sequences, the limit is ", most, " (max_running ",
        limits_.max_running, " and max_waiting ", limits_.waiting.max_waiting, ")"));
  }
  if (tokens <= limits_.waiting.max_waiting_tokens) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the request's ", count, " sequences have ", tokens, " tokens, the limit is ",
                   limits_.waiting.max_waiting_tokens, " (max_waiting_tokens)"));
}

absl::Status Mailbox::CheckFitsNow(int64_t count, int64_t tokens) const {
  // While nobody waits, the first of them find these places at once, unless pages are short.
  const int64_t places = state_.waiting == 0 ? limits_.max_running - state_.running : 0;
  return CheckRoom(limits_.waiting, {state_.waiting, state_.waiting_tokens},
                   {count - places, tokens});
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
