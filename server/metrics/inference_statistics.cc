#include "server/metrics/inference_statistics.h"

namespace evaserve {

class InferenceStatistics::Observer : public EngineObserver {
 public:
  Observer(InferenceStatistics& statistics, const std::string& model, int64_t version,
           std::unique_ptr<EngineObserver> next)
      : statistics_(statistics), key_(model, version), next_(std::move(next)) {}

  void OnStep(const StepStats& stats) override {
    {
      absl::MutexLock lock(&statistics_.mutex_);
      ModelSums& sums = statistics_.sums_[key_];
      sums.steps.Add(stats.duration);
      sums.steps_by_rows[stats.rows].Add(stats.duration);
    }
    next_->OnStep(stats);
  }

  void OnDone(Task task, const Completion& completion) override { next_->OnDone(task, completion); }
  void OnState(const EngineState& state) override { next_->OnState(state); }
  void OnFirstStep(std::chrono::microseconds queue_time) override {
    next_->OnFirstStep(queue_time);
  }
  void OnFirstToken(std::chrono::microseconds since_submit, int64_t prompt_tokens) override {
    next_->OnFirstToken(since_submit, prompt_tokens);
  }
  void OnNextToken(std::chrono::microseconds since_last_token) override {
    next_->OnNextToken(since_last_token);
  }

 private:
  InferenceStatistics& statistics_;
  const std::pair<std::string, int64_t> key_;
  const std::unique_ptr<EngineObserver> next_;
};

std::unique_ptr<EngineObserver> InferenceStatistics::MakeObserver(
    const std::string& model, int64_t version, std::unique_ptr<EngineObserver> next) {
  return std::make_unique<Observer>(*this, model, version, std::move(next));
}

void InferenceStatistics::Add(const std::string& model, int64_t version,
                              const RequestEnd& request) {
  absl::MutexLock lock(&mutex_);
  ModelSums& sums = sums_[{model, version}];
  if (!request.ok) return sums.fail.Add(request.duration);
  sums.success.Add(request.duration);
  sums.queue.Add(request.queue);
  sums.compute.Add(request.engine - request.queue);
  sums.inferences += static_cast<uint64_t>(request.rows);
  sums.last_inference = std::chrono::system_clock::now();
}

ModelSums InferenceStatistics::Of(const std::string& model, int64_t version) const {
  absl::MutexLock lock(&mutex_);
  const auto found = sums_.find({model, version});
  return found == sums_.end() ? ModelSums() : found->second;
}

}  // namespace evaserve
