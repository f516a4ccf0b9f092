#pragma once

#include <chrono>
#include <functional>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/metrics/metrics.h"
#include "server/repository/model_repository.h"

namespace evaserve {

// Notices models whose step does not end, also of those that were unloaded or replaced: their
// threads and memory are not coming back. Thread-safe, but one thread looks.
class StepWatch {
 public:
  struct Options {
    std::chrono::milliseconds limit{60'000};  // of a step; 0: none
    // Told when a model gets stuck, and when its step has ended after all.
    std::function<void(const std::string& model, bool is_stuck)> on_change;
  };

  // Both must outlive it.
  StepWatch(Options options, const ModelRepository& models, Metrics& metrics)
      : options_(std::move(options)), models_(models), metrics_(metrics) {}

  // Looks at all models, and shows what it sees in the metrics.
  void Look();

  // At the last look.
  bool sees_stuck() const;
  bool sees_stuck(const std::string& model) const;

 private:
  const Options options_;
  const ModelRepository& models_;
  Metrics& metrics_;
  std::set<std::string> shown_;  // models with a step age in the metrics
  mutable absl::Mutex mutex_;
  std::set<std::string> stuck_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace evaserve
