#pragma once

#include <chrono>
#include <functional>
#include <set>
#include <string>

#include "server/metrics/metrics.h"
#include "server/repository/model_repository.h"

namespace evaserve {

// Notices models whose step does not end. Not thread-safe: one thread looks.
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

  bool sees_stuck() const { return !stuck_.empty(); }

 private:
  const Options options_;
  const ModelRepository& models_;
  Metrics& metrics_;
  std::set<std::string> stuck_;
};

}  // namespace evaserve
