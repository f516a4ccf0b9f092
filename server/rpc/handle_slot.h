#pragma once

#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/engine/engine.h"

namespace evaserve {

// Where a call keeps the handle of its request. Engine::Submit() may still be returning it while
// another thread cancels or resumes it: neither gets lost. Thread-safe.
class HandleSlot {
 public:
  void Set(std::shared_ptr<RequestHandle> handle) ABSL_LOCKS_EXCLUDED(mutex_) {
    bool cancelled;
    bool resumed;
    {
      absl::MutexLock lock(&mutex_);
      handle_ = handle;
      cancelled = cancelled_;
      resumed = resumed_;
    }
    if (cancelled) handle->Cancel();
    if (resumed) handle->Resume();
  }

  void Cancel() ABSL_LOCKS_EXCLUDED(mutex_) {
    std::shared_ptr<RequestHandle> handle;
    {
      absl::MutexLock lock(&mutex_);
      cancelled_ = true;
      handle = handle_;
    }
    if (handle != nullptr) handle->Cancel();
  }

  void Resume() ABSL_LOCKS_EXCLUDED(mutex_) {
    std::shared_ptr<RequestHandle> handle;
    {
      absl::MutexLock lock(&mutex_);
      resumed_ = true;
      handle = handle_;
    }
    if (handle != nullptr) handle->Resume();
  }

 private:
  absl::Mutex mutex_;
  std::shared_ptr<RequestHandle> handle_ ABSL_GUARDED_BY(mutex_);
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool resumed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace evaserve
