#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/engine/observer.h"

namespace evaserve {

// How often something happened and how long it took in all.
struct DurationSum {
  uint64_t count = 0;
  std::chrono::microseconds total{0};

  void Add(std::chrono::microseconds duration) {
    ++count;
    total += duration;
  }
};

// What the Open Inference Protocol's ModelStatistics tells of a model since the server's start: its
// sequences, and the steps in which they ran together.
struct ModelSums {
  std::chrono::system_clock::time_point last_inference;
  DurationSum success, fail, cancel;              // from submission to the end
  DurationSum queue;                              // until the first step
  DurationSum compute;                            // from then on
  DurationSum steps;                              // of the engine
  std::map<int, DurationSum> steps_by_sequences;  // by the number of sequences in a step
};

// Sums by model and version. Thread-safe.
class InferenceStatistics {
 public:
  // Adds up what an engine reports, and passes it on to `next`. This must outlive it.
  std::unique_ptr<EngineObserver> MakeObserver(const std::string& model, int64_t version,
                                               std::unique_ptr<EngineObserver> next);

  ModelSums Of(const std::string& model, int64_t version) const;

 private:
  class Observer;

  mutable absl::Mutex mutex_;
  std::map<std::pair<std::string, int64_t>, ModelSums> sums_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace evaserve
