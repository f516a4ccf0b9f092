#include "server/engine/scheduler.h"

#include <algorithm>

namespace evaserve {
namespace {

// With more sequences than tokens in a step, some generation would have to sit out.
Scheduler::Options Clamp(Scheduler::Options options) {
  options.max_running = std::min(options.max_running, options.max_batch_tokens);
  return options;
}

}  // namespace

Scheduler::Scheduler(Options options) : options_(Clamp(options)) {}

void Scheduler::Enqueue(const Demand& demand) { waiting_.push_back(demand); }

std::vector<RequestId> Scheduler::Admit() {
  std::vector<RequestId> admitted;
  while (!waiting_.empty() && num_running() < options_.max_running &&
         promised_pages_ + waiting_.front().pages <= options_.total_pages) {
    const Demand& next = waiting_.front();
    running_.push_back(
        {.id = next.id, .prefill_tokens_left = next.prefill_tokens, .pages = next.pages});
    promised_pages_ += next.pages;
    admitted.push_back(next.id);
    waiting_.pop_front();
  }
  return admitted;
}

std::span<const StepPiece> Scheduler::FormStep(
    absl::FunctionRef<int(RequestId)> tokens_to_boundary) {
  step_.clear();
  for (const Running& sequence : running_) {
    if (sequence.prefill_tokens_left == 0 && !sequence.paused) {
      step_.push_back({.id = sequence.id, .num_tokens = 1, .is_prefill = false});
    }
  }
  int64_t budget = options_.max_batch_tokens - static_cast<int64_t>(step_.size());
  for (Running& sequence : running_) {
    if (budget == 0) break;
    if (sequence.prefill_tokens_left == 0) continue;
    const int64_t tokens = std::min({sequence.prefill_tokens_left, budget,
                                     static_cast<int64_t>(tokens_to_boundary(sequence.id))});
    step_.push_back(
        {.id = sequence.id, .num_tokens = static_cast<int>(tokens), .is_prefill = true});
    sequence.prefill_tokens_left -= tokens;
    budget -= tokens;
  }
  return step_;
}

void Scheduler::SetPaused(RequestId id, bool paused) {
  for (Running& sequence : running_) {
    if (sequence.id == id) sequence.paused = paused;
  }
}

void Scheduler::Remove(RequestId id) {
  std::erase_if(waiting_, [id](const Demand& demand) { return demand.id == id; });
  std::erase_if(running_, [this, id](const Running& sequence) {
    if (sequence.id != id) return false;
    promised_pages_ -= sequence.pages;
    return true;
  });
}

}  // namespace evaserve
