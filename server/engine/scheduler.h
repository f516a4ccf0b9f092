#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"

namespace evaserve {

using RequestId = uint64_t;

// What the scheduler must know of a request.
struct Demand {
  RequestId id = 0;
  int64_t prefill_tokens = 0;  // at least 1; the request then generates, or is removed
  int pages = 0;               // the most that its state will ever hold
  int priority = 0;            // smaller ones go first
};

// The tokens of one sequence in a step.
struct StepPiece {
  RequestId id = 0;
  int num_tokens = 0;
  bool is_prefill = false;  // else the one token that a generation goes on with
};

// Decides who gets a state and what runs in the next step.
//
// It only decides: it starts no thread, takes no lock, reads no clock and touches no model.
//
// Requests are admitted by priority and within one in the order they came, never skipping one, each
// when there is a place and the pages that it can ever need are not promised to others. So one that
// runs always finishes.
//
// A step holds first one token of every generating sequence, then pieces of prompts, one a prompt,
// as long as the token budget lasts. Prompts share the budget equally, so that a short one does not
// wait for a long one before it, but in shares of at least kLeastShare tokens, and older ones
// first; what a prompt cannot use goes to the others. A piece ends where the sequence's window
// does.
class Scheduler {
 public:
  static constexpr int64_t kLeastShare = 128;

  struct Options {
    int max_batch_tokens = 2048;  // in a step, at least 1
    int max_running = 256;        // at least 1; not more than max_batch_tokens are admitted
    int total_pages = 0;
  };

  explicit Scheduler(Options options);

  void Enqueue(const Demand& demand);

  // Moves those that can start from waiting to running and returns them.
  std::vector<RequestId> Admit();

  // The next step, empty if nobody can go on; valid until the next call. Its prompt tokens count as
  // done. `most_tokens` says for a running sequence how many tokens of its prompt one step can take
  // in: its window may end, or the rest not have come yet (0).
  std::span<const StepPiece> FormStep(absl::FunctionRef<int(RequestId)> most_tokens);

  // A paused sequence keeps its place and its pages, but generates nothing.
  void SetPaused(RequestId id, bool paused);

  // Forgets a request, waiting or running.
  void Remove(RequestId id);

  int num_waiting() const { return static_cast<int>(waiting_.size()); }
  int num_running() const { return static_cast<int>(running_.size()); }
  int promised_pages() const { return promised_pages_; }

 private:
  struct Running {
    RequestId id = 0;
    int64_t prefill_tokens_left = 0;
    int pages = 0;
    int priority = 0;
    bool paused = false;
  };

  std::vector<int64_t> ShareBudget(absl::FunctionRef<int(RequestId)> most_tokens,
                                   int64_t budget) const;

  const Options options_;
  // By priority, then oldest first.
  std::deque<Demand> waiting_;
  std::vector<Running> running_;
  std::vector<StepPiece> step_;
  int promised_pages_ = 0;
};

}  // namespace evaserve
