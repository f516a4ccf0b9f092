#include "tests/fakes/recording_observer.h"

namespace evaserve {

void RecordingObserver::OnStep(const StepStats& stats) {
  absl::MutexLock lock(&mutex_);
  records_.steps.push_back(stats);
}

void RecordingObserver::OnState(const EngineState& state) {
  absl::MutexLock lock(&mutex_);
  records_.states.push_back(state);
}

void RecordingObserver::OnFirstStep(std::chrono::microseconds) {
  absl::MutexLock lock(&mutex_);
  ++records_.num_first_steps;
}

void RecordingObserver::OnFirstToken(std::chrono::microseconds, int64_t) {
  absl::MutexLock lock(&mutex_);
  ++records_.num_first_tokens;
}

void RecordingObserver::OnNextToken(std::chrono::microseconds) {
  absl::MutexLock lock(&mutex_);
  ++records_.num_next_tokens;
}

void RecordingObserver::OnDone(Task, const Completion& completion) {
  absl::MutexLock lock(&mutex_);
  records_.completions.push_back(completion);
}

RecordingObserver::Records RecordingObserver::records() const {
  absl::MutexLock lock(&mutex_);
  return records_;
}

}  // namespace evaserve
