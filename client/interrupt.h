#pragma once

#include <thread>

#include "client/call_options.h"

namespace evaserve {

// Turns Ctrl-C and SIGTERM into a Cancellation, so that the server hears of it and output ends at a
// message. A second signal ends the process at once.
//
// Make one, before any other thread starts: it blocks the signals for all that start later.
class InterruptGuard {
 public:
  // `cancellation` outlives the guard.
  explicit InterruptGuard(Cancellation& cancellation);
  ~InterruptGuard();

  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

 private:
  std::thread thread_;
};

}  // namespace evaserve
