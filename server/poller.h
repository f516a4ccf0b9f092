#pragma once

#include <chrono>
#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace evaserve {

// Runs a task again and again, on a thread of its own, until it is destroyed.
class Poller {
 public:
  // `name` is what the thread is called, at most 15 characters. The first run is after `interval`.
  Poller(const char* name, std::chrono::milliseconds interval, std::function<void()> task);
  // Waits for a run that has begun.
  ~Poller();

  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

 private:
  void Run(const char* name);
  // Returns after the interval, true, or when it is to end, false.
  bool Sleep();

  const std::chrono::milliseconds interval_;
  const std::function<void()> task_;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace evaserve
