#include "server/engine/tensor_engine.h"

#include <pthread.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "models/memory_guard.h"
#include "server/engine/durations.h"
#include "server/engine/request_check.h"

namespace evaserve {

namespace {

int64_t NumBytes(const TensorModel::Inputs& inputs) {
  int64_t bytes = 0;
  for (const InputTensor& input : inputs) bytes += std::ssize(input.data);
  return bytes;
}

}  // namespace

TensorEngine::TensorEngine(std::unique_ptr<TensorModel> model, const EngineOptions& options,
                           EngineObserver& observer)
    : model_(std::move(model)),
      options_(options),
      observer_(observer),
      queue_({.max_batch_size = std::max(options.max_batch_size, 1),  // who is alone may be larger
              .max_batch_tokens = options.max_batch_tokens,
              .preferred_batch_sizes = options.preferred_batch_sizes,
              .max_queue_delay = options.max_queue_delay,
              .waiting = options.waiting}) {
  model_->set_is_wanted([this] { return IsWanted(); });
  thread_ = std::thread([this] { Loop(); });
  pthread_setname_np(thread_.native_handle(), "eva-tensors");
}

TensorEngine::~TensorEngine() {
  {
    absl::MutexLock lock(&mutex_);
    queue_.Close();
    closed_ = has_news_ = true;
  }
  thread_.join();
}

absl::StatusOr<uint64_t> TensorEngine::Submit(TensorRequest request) {
  const TimePoint now = Clock::now();
  request.deadline = Within(options_.max_request_time, now, request.deadline);
  if (absl::Status status = CheckDeadline(request.deadline, now); !status.ok()) return status;
  if (absl::Status status = CheckPriority(request.priority); !status.ok()) return status;
  if (absl::Status status = CheckRows(request); !status.ok()) return status;
  // Before the inputs cost a look, and again once they have had it.
  if (absl::Status status = CheckRoom(); !status.ok()) return status;
  const absl::StatusOr<int64_t> tokens = model_->CountTokens(request.inputs);
  if (!tokens.ok()) return tokens.status();
  BatchQueue::Item item{.rows = request.batch,
                        .tokens = *tokens,
                        .bytes = NumBytes(request.inputs),
                        .priority = request.priority,
                        .submitted = now,
                        .expires = Within(options_.max_queue_time, now, request.deadline)};
  absl::MutexLock lock(&mutex_);
  item.id = next_id_++;
  if (absl::Status status = queue_.Push(item); !status.ok()) return status;
  waiting_.emplace(item.id, Waiting{item.id, std::move(request), now});
  ++num_in_flight_;
  has_news_ = true;
  return item.id;
}

absl::Status TensorEngine::CheckRows(const TensorRequest& request) const {
  const int limit = options_.max_batch_size;
  if (limit == 0 || request.batch <= limit) return absl::OkStatus();
  const auto given = std::ranges::find_if(
      request.inputs, [](const InputTensor& input) { return !input.shape.empty(); });
  const auto index = static_cast<size_t>(given - request.inputs.begin());
  const std::string name = index < info().inputs.size() ? info().inputs[index].name : "inputs";
  return absl::InvalidArgumentError(absl::StrCat(name, ": got a batch of ", request.batch,
                                                 ", batch-size must be <= ", limit,
                                                 " (max_batch_size)"));
}

absl::Status TensorEngine::CheckRoom() const {
  absl::MutexLock lock(&mutex_);
  return queue_.CheckRoomFor({});
}

void TensorEngine::Cancel(uint64_t id) {
  absl::MutexLock lock(&mutex_);
  cancelled_.push_back(id);
  has_news_ = true;
}

void TensorEngine::Drain() {
  absl::MutexLock lock(&mutex_);
  queue_.Close();
  has_news_ = true;
}

bool TensorEngine::WaitUntilIdle(TimePoint deadline) {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(this, &TensorEngine::IsIdle), Until(deadline));
}

EngineState TensorEngine::state() const {
  const StatePool pool = model_->state_pool();
  absl::MutexLock lock(&mutex_);
  return {.running = num_in_flight_ - queue_.num_waiting(),
          .waiting = queue_.num_waiting(),
          .waiting_tokens = queue_.waiting_tokens(),
          .pages_used = pool.total_pages - pool.free_pages,
          .pages_promised = pool.total_pages - pool.free_pages,
          .pages_total = pool.total_pages,
          .page_bytes = pool.page_bytes};
}

void TensorEngine::Loop() {
  while (true) {
    Work work = Take();
    Publish();
    EndAll(std::move(work.cancelled), absl::CancelledError("the request was cancelled"));
    EndExpired(std::move(work.expired));
    if (work.closed) {
      EndAll(std::move(work.batch), absl::UnavailableError("the server is shutting down"));
      break;
    }
    if (!work.batch.empty()) RunBatch(std::move(work.batch));
    Publish();
  }
  Publish();
}

TensorEngine::Work TensorEngine::Take() {
  Work work;
  absl::MutexLock lock(&mutex_);
  while (true) {
    const TimePoint now = Clock::now();
    has_news_ = false;
    work.closed = closed_;
    const auto is_gone = [this](uint64_t id)
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !queue_.Remove(id); };
    std::erase_if(cancelled_, is_gone);
    work.cancelled = Remove(std::exchange(cancelled_, {}));
    work.expired = Remove(queue_.TakeExpired(now));
    work.batch = Remove(queue_.TakeReady(now));
    for (std::vector<uint64_t> more; closed_ && !(more = queue_.TakeReady(now)).empty();) {
      std::ranges::move(Remove(more), std::back_inserter(work.batch));
    }
    if (closed_ || !work.batch.empty() || !work.expired.empty() || !work.cancelled.empty()) {
      return work;
    }
    const TimePoint wake_up = queue_.NextWakeUp().value_or(TimePoint::max());
    mutex_.AwaitWithTimeout(absl::Condition(this, &TensorEngine::HasNews), Until(wake_up));
  }
}

TensorEngine::WaitingList TensorEngine::Remove(const std::vector<uint64_t>& ids) {
  WaitingList removed;
  removed.reserve(ids.size());
  for (uint64_t id : ids) removed.push_back(std::move(waiting_.extract(id).mapped()));
  return removed;
}

void TensorEngine::RunBatch(WaitingList batch) {
  if (!lost_.ok()) return EndAll(std::move(batch), lost_);
  const TimePoint start = Clock::now();
  StepStats stats{.num_sequences = static_cast<int>(batch.size())};
  for (const Waiting& one : batch) {
    stats.rows += one.request.batch;
    observer_.OnFirstStep(Between(one.submitted, start));
  }
  Results results = RunModel(batch);
  stats.duration = Between(start, Clock::now());
  observer_.OnStep(stats);
  Answer(batch, std::move(results), start);
}

TensorEngine::Results TensorEngine::RunModel(std::span<const Waiting> batch) {
  if (!lost_.ok()) return lost_;
  std::vector<const TensorModel::Inputs*> inputs;
  inputs.reserve(batch.size());
  for (const Waiting& one : batch) inputs.push_back(&one.request.inputs);
  running_ = batch;
  clock_.Start(Clock::now());
  Results results = GuardMemory("the pass", [&] { return model_->Run(inputs); });
  clock_.Stop();
  if (absl::IsUnavailable(results.status())) {
    lost_ = results.status();
    options_.on_model_lost(lost_);  // nobody is sent here again
  }
  if (!results.ok()) return results;
  const size_t num_outputs = info().outputs.size();
  const bool is_complete =
      results->size() == inputs.size() &&
      std::ranges::all_of(*results, [&](const auto& one) { return one.size() == num_outputs; });
  if (is_complete) return results;
  return absl::InternalError(
      absl::StrCat("the model did not give ", num_outputs, " outputs for each request"));
}

bool TensorEngine::IsWanted() {
  clock_.Start(Clock::now());  // the pass gets on
  return std::ranges::any_of(running_,
                             [this](const Waiting& one) { return WhyUnwanted(one).ok(); });
}

absl::Status TensorEngine::WhyUnwanted(const Waiting& one) const {
  absl::Status late = CheckDeadline(one.request.deadline, Clock::now());
  if (!late.ok()) return late;
  absl::MutexLock lock(&mutex_);
  if (closed_) return absl::UnavailableError("the server is shutting down");
  if (std::ranges::find(cancelled_, one.id) == cancelled_.end()) return absl::OkStatus();
  return absl::CancelledError("the request was cancelled");
}

void TensorEngine::Answer(std::span<Waiting> batch, Results results, TimePoint start) {
  const absl::Status status = results.status();
  if (status.ok()) {
    for (size_t i = 0; i < batch.size(); ++i) {
      End(std::move(batch[i]), absl::OkStatus(), std::move((*results)[i]), start);
    }
  } else if (batch.size() == 1 || absl::IsUnavailable(status) || absl::IsCancelled(status)) {
    for (Waiting& one : batch) {
      absl::Status unwanted = WhyUnwanted(one);
      End(std::move(one), unwanted.ok() ? status : unwanted, {}, start);
    }
  } else {
    const size_t half = batch.size() / 2;
    RunAgain(batch.first(half), start);
    RunAgain(batch.subspan(half), start);
  }
}

void TensorEngine::RunAgain(std::span<Waiting> batch, TimePoint start) {
  size_t num_wanted = 0;
  for (Waiting& one : batch) {
    absl::Status unwanted = WhyUnwanted(one);
    if (!unwanted.ok()) {
      End(std::move(one), std::move(unwanted), {}, start);
    } else if (Waiting& place = batch[num_wanted++]; &place != &one) {
      place = std::move(one);
    }
  }
  if (num_wanted == 0) return;
  batch = batch.first(num_wanted);
  Answer(batch, RunModel(batch), start);
}

void TensorEngine::EndExpired(WaitingList list) {
  const TimePoint now = Clock::now();
  for (Waiting& one : list) {
    absl::Status status = CheckDeadline(one.request.deadline, now);
    if (status.ok()) {
      status = QueueTimeError(options_.waiting.overload_status, options_.max_queue_time);
    }
    End(std::move(one), std::move(status), {}, now);
  }
}

void TensorEngine::EndAll(WaitingList list, const absl::Status& status) {
  const TimePoint now = Clock::now();
  for (Waiting& one : list) End(std::move(one), status, {}, now);
}

void TensorEngine::End(Waiting one, absl::Status status, TensorModel::Outputs outputs,
                       TimePoint start) {
  Completion completion;
  completion.status = std::move(status);
  completion.rows = one.request.batch;
  completion.timings.queue = Between(one.submitted, start);
  completion.timings.total = Between(one.submitted, Clock::now());
  observer_.OnDone(Task::kInfer, completion);
  one.request.done(std::move(completion), std::move(outputs));
  one.request.done = nullptr;  // before the engine counts as idle
  absl::MutexLock lock(&mutex_);
  --num_in_flight_;
}

void TensorEngine::Publish() {
  const EngineState now = state();
  if (now == published_) return;
  published_ = now;
  observer_.OnState(now);
}

}  // namespace evaserve
