#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/engine/active_request.h"
#include "server/engine/observer.h"
#include "server/engine/overload.h"
#include "server/engine/request.h"
#include "server/engine/scheduler.h"

namespace evaserve {

// What other threads have for the engine's thread, and what it tells them in return. Thread-safe.
//
// What has been submitted since the engine's thread last told how it stands fills the places that
// were free then, in the order it came, if nobody waited for one; only the rest counts against the
// limits of what may wait. Pages can be short, so that some of the first wait as well: then as many
// more requests may wait as there are places, with the tokens of their prompts.
class Mailbox {
 public:
  struct Limits {
    int max_running = 256;
    WaitingLimits waiting = {};
  };

  // The next tokens of a prompt.
  struct Piece {
    RequestId id = 0;
    std::vector<TokenId> tokens;
  };

  struct Mail {
    std::vector<std::unique_ptr<ActiveRequest>> submitted;  // oldest first
    std::vector<Piece> pieces;                              // in order
    std::vector<RequestId> cancelled;
    std::vector<RequestId> resumed;
    bool closed = false;
  };

  explicit Mailbox(Limits limits) : limits_(limits) {}

  // Takes all of `requests` or none.
  //
  // Errors: InvalidArgument for more than can ever be taken together; those of CheckRoom();
  // Unavailable after Drain() or Close().
  absl::Status Submit(std::vector<std::unique_ptr<ActiveRequest>> requests);
  void Cancel(RequestId id);
  void Resume(RequestId id);
  void Append(Piece piece);

  // Refuses submissions from now on.
  void Drain();

  // Refuses everything from now on and tells the engine's thread to end.
  void Close();

  // Waits until nothing is in flight or `deadline` comes; true if nothing is.
  bool WaitUntilIdle(TimePoint deadline);

  // As published, and what has been submitted since counts as waiting.
  EngineState state() const;

  // For the engine's thread: what has come, as soon as there is something or `deadline` comes.
  Mail Take(TimePoint deadline);

  // For the engine's thread: how it stands, and how many requests have ended since the last call.
  void Publish(const EngineState& state, int num_ended);

 private:
  using Requests = std::span<const std::unique_ptr<ActiveRequest>>;

  absl::Status CheckCanEverFit(Requests requests) const;
  absl::Status CheckFitsNow(Requests requests) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Of requests that come now: those that find no free place.
  Requests WithoutPlace(Requests requests) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CountSubmitted(Requests requests) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasMail() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsIdle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return num_in_flight_ == 0; }

  const Limits limits_;
  mutable absl::Mutex mutex_;
  Mail mail_ ABSL_GUARDED_BY(mutex_);
  EngineState state_ ABSL_GUARDED_BY(mutex_);  // as published
  // What has been submitted since: all of it, and what of it has found none of the free places.
  WaitingWork submitted_ ABSL_GUARDED_BY(mutex_);
  WaitingWork without_place_ ABSL_GUARDED_BY(mutex_);
  int64_t num_in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace evaserve
