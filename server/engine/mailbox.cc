#include "server/engine/mailbox.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/durations.h"

namespace evaserve {
namespace {

WaitingWork WorkOf(std::span<const std::unique_ptr<ActiveRequest>> requests) {
  WaitingWork work{.requests = std::ssize(requests)};
  for (const auto& request : requests) work.tokens += request->prompt_tokens();
  return work;
}

void Add(const WaitingWork& more, WaitingWork& sum) {
  sum.requests += more.requests;
  sum.tokens += more.tokens;
}

}  // namespace

absl::Status Mailbox::Submit(std::vector<std::unique_ptr<ActiveRequest>> requests) {
  if (absl::Status status = CheckCanEverFit(requests); !status.ok()) return status;
  absl::MutexLock lock(&mutex_);
  if (draining_) return absl::UnavailableError("the server is shutting down");
  if (absl::Status status = CheckFitsNow(requests); !status.ok()) return status;
  CountSubmitted(requests);
  num_in_flight_ += std::ssize(requests);
  std::ranges::move(requests, std::back_inserter(mail_.submitted));
  return absl::OkStatus();
}

absl::Status Mailbox::CheckCanEverFit(Requests requests) const {
  const int64_t count = std::ssize(requests);
  if (count <= 1) return absl::OkStatus();
  const int64_t most = int64_t{limits_.max_running} + limits_.waiting.max_waiting;
  if (count > most) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the request makes ", count, " sequences, the limit is ", most, " (max_running ",
        limits_.max_running, " and max_waiting ", limits_.waiting.max_waiting, ")"));
  }
  const int64_t tokens = WorkOf(requests).tokens;
  if (tokens <= limits_.waiting.max_waiting_tokens) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the request's ", count, " sequences have ", tokens, " tokens, the limit is ",
                   limits_.waiting.max_waiting_tokens, " (max_waiting_tokens)"));
}

absl::Status Mailbox::CheckFitsNow(Requests requests) const {
  const Requests rest = WithoutPlace(requests);
  if (rest.empty()) return absl::OkStatus();
  WaitingWork waiting{state_.waiting, state_.waiting_tokens};
  Add(without_place_, waiting);
  return CheckRoom(limits_.waiting, waiting, WorkOf(rest));
}

Mailbox::Requests Mailbox::WithoutPlace(Requests requests) const {
  if (state_.waiting > 0) return requests;
  const int64_t places = limits_.max_running - state_.running - submitted_.requests;
  return requests.subspan(std::clamp<int64_t>(places, 0, std::ssize(requests)));
}

void Mailbox::CountSubmitted(Requests requests) {
  Add(WorkOf(WithoutPlace(requests)), without_place_);
  Add(WorkOf(requests), submitted_);
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
  EngineState state = state_;
  state.waiting += submitted_.requests;
  state.waiting_tokens += submitted_.tokens;
  return state;
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
  submitted_ = without_place_ = {};
  CountSubmitted(mail_.submitted);
  num_in_flight_ -= num_ended;
}

}  // namespace evaserve
