#include "server/engine/scheduler.h"

#include <algorithm>
#include <utility>

namespace evaserve {
namespace {

// With more sequences than tokens in a step, some generation would have to sit out.
Scheduler::Options Clamp(Scheduler::Options options) {
  options.max_running = std::min(options.max_running, options.max_batch_tokens);
  return options;
}

// Puts `item` after all of its priority.
template <typename List, typename Item>
void Insert(List& list, Item item) {
  const auto place =
      std::upper_bound(list.begin(), list.end(), item.priority,
                       [](int priority, const Item& other) { return priority < other.priority; });
  list.insert(place, std::move(item));
}

}  // namespace

Scheduler::Scheduler(Options options) : options_(Clamp(options)) {}

void Scheduler::Enqueue(const Demand& demand) { Insert(waiting_, demand); }

std::vector<RequestId> Scheduler::Admit() {
  std::vector<RequestId> admitted;
  while (!waiting_.empty() && num_running() < options_.max_running &&
         promised_pages_ + waiting_.front().pages <= options_.total_pages) {
    const Demand& next = waiting_.front();
    Insert(running_, Running{.id = next.id,
                             .prefill_tokens_left = next.prefill_tokens,
                             .pages = next.pages,
                             .priority = next.priority});
    promised_pages_ += next.pages;
    admitted.push_back(next.id);
    waiting_.pop_front();
  }
  return admitted;
}

std::span<const StepPiece> Scheduler::FormStep(absl::FunctionRef<int(RequestId)> most_tokens) {
  step_.clear();
  for (const Running& sequence : running_) {
    if (sequence.prefill_tokens_left == 0 && !sequence.paused) {
      step_.push_back({.id = sequence.id, .num_tokens = 1, .is_prefill = false});
    }
  }
  const std::vector<int64_t> shares =
      ShareBudget(most_tokens, options_.max_batch_tokens - static_cast<int64_t>(step_.size()));
  for (size_t i = 0; i < running_.size(); ++i) {
    if (shares[i] == 0) continue;
    step_.push_back(
        {.id = running_[i].id, .num_tokens = static_cast<int>(shares[i]), .is_prefill = true});
    running_[i].prefill_tokens_left -= shares[i];
  }
  return step_;
}

// Prompt tokens of each running sequence.
std::vector<int64_t> Scheduler::ShareBudget(absl::FunctionRef<int(RequestId)> most_tokens,
                                            int64_t budget) const {
  std::vector<int64_t> shares(running_.size(), 0), most(running_.size(), 0);
  std::vector<size_t> prompts;  // those that are sure of a share
  for (size_t i = 0; i < running_.size(); ++i) {
    if (running_[i].prefill_tokens_left == 0) continue;
    most[i] = std::min(running_[i].prefill_tokens_left,
                       static_cast<int64_t>(most_tokens(running_[i].id)));
    if (most[i] > 0 && std::ssize(prompts) < std::max<int64_t>(1, budget / kLeastShare))
      prompts.push_back(i);
  }
  // What the younger ones leave goes to the older ones.
  for (size_t n = prompts.size(); n > 0; --n) {
    const size_t i = prompts[n - 1];
    shares[i] = std::min(most[i], budget / static_cast<int64_t>(n));
    budget -= shares[i];
  }
  for (size_t i = 0; i < running_.size(); ++i) {
    const int64_t more = std::min(most[i] - shares[i], budget);
    shares[i] += more;
    budget -= more;
  }
  return shares;
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
