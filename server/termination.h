#pragma once

#include <chrono>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace evaserve {

// Waits for SIGTERM or SIGINT on a thread of its own. The first one wakes Wait(); a second one ends
// the process at once, with exit code 1. Make it before any other thread: it blocks the signals for
// all of them.
class Termination {
 public:
  Termination();
  ~Termination();

  Termination(const Termination&) = delete;
  Termination& operator=(const Termination&) = delete;

  // Returns after the first signal or request.
  void Wait();

  // As a signal does. Thread-safe.
  void Request();

  // Ends the process after `time`, with exit code 1 and a critical log line, if it still runs then,
  // whatever its threads wait for.
  static void EndWithin(std::chrono::seconds time);

 private:
  void Listen();

  absl::Mutex mutex_;
  bool requested_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace evaserve
