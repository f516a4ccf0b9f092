#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

namespace evaserve {

// What files hold, which may change while the server runs. Thread-safe.
template <typename T>
class Reloaded {
 public:
  using Read = std::function<absl::StatusOr<T>()>;

  Reloaded(T first, Read read)
      : read_(std::move(read)), current_(std::make_shared<const T>(std::move(first))) {}

  std::shared_ptr<const T> current() const {
    absl::MutexLock lock(&mutex_);
    return current_;
  }

  // Reads again; whether current() is another now. An error of reading is told once, and what there
  // was stays.
  absl::StatusOr<bool> Reload() {
    absl::StatusOr<T> now = read_();
    absl::MutexLock lock(&mutex_);
    const absl::Status last_error = std::exchange(last_error_, now.status());
    if (!now.ok()) {
      if (now.status() == last_error) return false;
      return now.status();
    }
    if (*now == *current_) return false;
    current_ = std::make_shared<const T>(*std::move(now));
    return true;
  }

 private:
  const Read read_;
  mutable absl::Mutex mutex_;
  std::shared_ptr<const T> current_ ABSL_GUARDED_BY(mutex_);
  absl::Status last_error_ ABSL_GUARDED_BY(mutex_);  // of the last Reload()
};

}  // namespace evaserve
