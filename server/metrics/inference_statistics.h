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

// How a request, a call or one message of a stream, ended.
struct RequestEnd {
  bool ok = false;
  std::chrono::microseconds duration{0};  // from its arrival
  std::chrono::microseconds queue{0};     // until the first step of its last sequence
  std::chrono::microseconds engine{0};    // from submission to the end of its last sequence
  int64_t rows = 0;                       // of its tensors, or its sequences
};

// What the Open Inference Protocol's ModelStatistics tells of a model since the server's start: the
// requests to it, and the steps in which their rows ran together. As Triton counts them.
struct ModelSums {
  std::chrono::system_clock::time_point last_inference;
  uint64_t inferences = 0;    // rows of requests that ended well
  DurationSum success, fail;  // from arrival to the end; who was refused or cancelled failed
  DurationSum queue;          // of those that ended well, until the first step
  DurationSum compute;        // of those, from then on
  DurationSum steps;          // of the engine
  std::map<int64_t, DurationSum> steps_by_rows;  // by the number of rows in a step
};

// Sums by model and version. Thread-safe.
class InferenceStatistics {
 public:
  // Adds up the steps that an engine reports, and passes all on to `next`. This must outlive it.
  std::unique_ptr<EngineObserver> MakeObserver(const std::string& model, int64_t version,
                                               std::unique_ptr<EngineObserver> next);

  void Add(const std::string& model, int64_t version, const RequestEnd& request);

  ModelSums Of(const std::string& model, int64_t version) const;

 private:
  class Observer;

  mutable absl::Mutex mutex_;
  std::map<std::pair<std::string, int64_t>, ModelSums> sums_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace evaserve
