#pragma once

#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/engine/observer.h"

namespace evaserve {

// Keeps what an engine tells about itself, for tests to look at. Thread-safe.
class RecordingObserver final : public EngineObserver {
 public:
  struct Records {
    std::vector<StepStats> steps;
    std::vector<EngineState> states;
    std::vector<Completion> completions;
    int num_first_steps = 0;
    int num_first_tokens = 0;
    int num_next_tokens = 0;
  };

  void OnStep(const StepStats& stats) override;
  void OnState(const EngineState& state) override;
  void OnFirstStep(std::chrono::microseconds queue_time) override;
  void OnFirstToken(std::chrono::microseconds since_submit, int64_t prompt_tokens) override;
  void OnNextToken(std::chrono::microseconds since_last_token) override;
  void OnDone(Task task, const Completion& completion) override;

  Records records() const;

 private:
  mutable absl::Mutex mutex_;
  Records records_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace evaserve
