#include "server/engine/step_loop.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/memory_guard.h"
#include "server/engine/durations.h"

namespace evaserve {
namespace {

absl::Status PieceWaitError(const ActiveRequest& request, std::chrono::milliseconds max_wait) {
  return absl::DeadlineExceededError(absl::StrCat(
      "no piece of the prompt has come in ", max_wait.count(), " ms (max_piece_wait), ",
      request.tokens_to_come(), " of its ", request.prompt_tokens(), " tokens are missing"));
}

}  // namespace

StepLoop::StepLoop(Model& model, const EngineOptions& options, EngineObserver& observer,
                   Mailbox& mailbox)
    : model_(model),
      on_model_lost_(options.on_model_lost),
      observer_(observer),
      mailbox_(mailbox),
      scheduler_({.max_batch_tokens = options.max_batch_tokens,
                  .max_running = options.max_running,
                  .total_pages = model.state_pool().total_pages}),
      max_queue_time_(options.max_queue_time),
      max_piece_wait_(options.max_piece_wait),
      overload_status_(options.waiting.overload_status) {
  mailbox_.Publish(CurrentState(), /*num_ended=*/0);
}

void StepLoop::Run() {
  Publish();
  bool is_busy = false;
  while (true) {
    Mailbox::Mail mail = mailbox_.Take(is_busy ? TimePoint::min() : NextDeadline());
    const bool closed = mail.closed;
    Receive(std::move(mail));
    if (closed) break;
    const TimePoint now = Clock::now();
    EndExpired(now);
    AdmitWaiting(now);
    Publish();
    is_busy = RunStep(now);
  }
  EndAll(absl::UnavailableError("the server is shutting down"));
  Publish();
}

void StepLoop::Receive(Mailbox::Mail mail) {
  for (std::unique_ptr<ActiveRequest>& request : mail.submitted) {
    const RequestId id = request->id();
    scheduler_.Enqueue({.id = id,
                        .prefill_tokens = request->prefill_tokens(),
                        .pages = model_.PagesFor(request->max_length()),
                        .priority = request->priority()});
    deadlines_.Set(id, request->deadline());
    queue_deadlines_.Set(id, Within(max_queue_time_, request->submitted(), TimePoint::max()));
    waiting_tokens_ += request->prompt_tokens();
    requests_.emplace(id, std::move(request));
  }
  for (const Mailbox::Piece& piece : mail.pieces) {
    const auto found = requests_.find(piece.id);
    if (found == requests_.end() || piece.tokens.empty()) continue;
    found->second->Append(piece.tokens);
    piece_deadlines_.Erase(piece.id);
  }
  for (RequestId id : mail.resumed) scheduler_.SetPaused(id, false);
  for (RequestId id : mail.cancelled) {
    End(id, absl::CancelledError("the request was cancelled"), Clock::now());
  }
}

void StepLoop::EndExpired(TimePoint now) {
  while (const auto id = deadlines_.TakePassed(now)) {
    End(*id, absl::DeadlineExceededError("the deadline has passed"), now);
  }
  while (const auto id = queue_deadlines_.TakePassed(now)) {
    End(*id, QueueTimeError(overload_status_, max_queue_time_), now);
  }
  while (const auto id = piece_deadlines_.TakePassed(now)) {
    End(*id, PieceWaitError(*requests_.at(*id), max_piece_wait_), now);
  }
}

void StepLoop::WatchForPieces(const ActiveRequest& request, TimePoint now) {
  if (!request.awaits_piece()) return;
  piece_deadlines_.Set(request.id(), Within(max_piece_wait_, now, TimePoint::max()));
}

TimePoint StepLoop::NextDeadline() const {
  return std::min({deadlines_.first(), queue_deadlines_.first(), piece_deadlines_.first()});
}

void StepLoop::AdmitWaiting(TimePoint now) {
  for (RequestId id : scheduler_.Admit()) {
    ActiveRequest& request = *requests_.at(id);
    request.Start(model_.NewSequence());
    waiting_tokens_ -= request.prompt_tokens();
    queue_deadlines_.Erase(id);
    WatchForPieces(request, now);
  }
}

bool StepLoop::RunStep(TimePoint now) {
  const std::span<const StepPiece> pieces = scheduler_.FormStep([this](RequestId id) {
    const ActiveRequest& request = *requests_.at(id);
    return std::min(model_.TokensToBoundary(request.sequence()), request.tokens_at_hand());
  });
  if (pieces.empty()) return false;
  GatherItems(pieces, now);
  if (items_.empty()) return true;
  absl::StatusOr<std::vector<StepResult>> results = RunModel(items_);
  if (results.ok()) {
    const TimePoint end = Clock::now();
    for (size_t i = 0; i < batch_.size(); ++i) {
      TakeResult(*batch_[i], std::move((*results)[i]), end);
    }
  } else if (absl::IsUnavailable(results.status())) {
    LoseModel(results.status());
  } else if (!states_are_known_) {
    for (ActiveRequest* request : batch_) End(request->id(), results.status(), Clock::now());
  } else {
    StepOneByOne(results.status());
  }
  stats_.duration = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - now);
  observer_.OnStep(stats_);
  return true;
}

void StepLoop::GatherItems(std::span<const StepPiece> pieces, TimePoint now) {
  items_.clear();
  batch_.clear();
  stats_ = {};
  for (const StepPiece& piece : pieces) {
    ActiveRequest& request = *requests_.at(piece.id);
    // Admission has promised the pages, so this fails only if the model miscounts.
    if (absl::Status status = model_.Reserve(request.sequence(), piece.num_tokens); !status.ok()) {
      End(piece.id, std::move(status), now);
      continue;
    }
    request.OnStepStart(now, observer_);
    items_.push_back(request.NextItem(piece.num_tokens));
    batch_.push_back(&request);
    (piece.is_prefill ? stats_.prefill_tokens : stats_.decode_tokens) += piece.num_tokens;
  }
  stats_.num_sequences = static_cast<int>(items_.size());
  stats_.rows = stats_.num_sequences;
}

absl::StatusOr<std::vector<StepResult>> StepLoop::RunModel(std::span<const StepItem> items) {
  clock_.Start(Clock::now());
  states_are_known_ = false;
  absl::StatusOr<std::vector<StepResult>> results = GuardMemory("the step", [&] {
    absl::StatusOr<std::vector<StepResult>> results = model_.Step(items);
    states_are_known_ = true;
    return results;
  });
  clock_.Stop();
  return results;
}

// The states are as before the failed step, so each sequence gets a second chance alone, and only
// the guilty ones end.
void StepLoop::StepOneByOne(const absl::Status& status) {
  for (size_t i = 0; i < batch_.size(); ++i) {
    absl::StatusOr<std::vector<StepResult>> result = status;
    if (batch_.size() > 1) result = RunModel(std::span(items_).subspan(i, 1));
    if (absl::IsUnavailable(result.status())) return LoseModel(result.status());
    if (result.ok()) {
      TakeResult(*batch_[i], std::move(result->front()), Clock::now());
    } else {
      End(batch_[i]->id(), result.status(), Clock::now());
    }
  }
}

void StepLoop::LoseModel(const absl::Status& status) {
  on_model_lost_(status);  // first, so that nobody is sent here again
  EndAll(status);
}

void StepLoop::EndAll(const absl::Status& status) {
  while (!requests_.empty()) End(requests_.begin()->first, status, Clock::now());
}

void StepLoop::TakeResult(ActiveRequest& request, StepResult result, TimePoint now) {
  switch (request.TakeResult(std::move(result), now, observer_)) {
    case ActiveRequest::Outcome::kGoesOn:
      WatchForPieces(request, now);
      break;
    case ActiveRequest::Outcome::kPauses:
      scheduler_.SetPaused(request.id(), true);
      break;
    case ActiveRequest::Outcome::kDone:
      End(request.id(), absl::OkStatus(), now);
      break;
  }
}

void StepLoop::End(RequestId id, absl::Status status, TimePoint now) {
  auto node = requests_.extract(id);
  if (node.empty()) return;  // cancelled after its end
  ActiveRequest& request = *node.mapped();
  if (!request.has_started()) waiting_tokens_ -= request.prompt_tokens();
  scheduler_.Remove(id);
  for (Deadlines* deadlines : {&deadlines_, &queue_deadlines_, &piece_deadlines_}) {
    deadlines->Erase(id);
  }
  ++num_ended_;
  request.End(std::move(status), now, observer_);
}

EngineState StepLoop::CurrentState() const {
  const StatePool pool = model_.state_pool();
  return {.running = scheduler_.num_running(),
          .waiting = scheduler_.num_waiting(),
          .waiting_tokens = waiting_tokens_,
          .pages_used = pool.total_pages - pool.free_pages,
          .pages_promised = scheduler_.promised_pages(),
          .pages_total = pool.total_pages,
          .page_bytes = pool.page_bytes};
}

void StepLoop::Publish() {
  const EngineState state = CurrentState();
  if (state == published_ && num_ended_ == 0) return;
  if (state != published_) observer_.OnState(state);
  published_ = state;
  mailbox_.Publish(state, std::exchange(num_ended_, 0));
}

}  // namespace evaserve
