#pragma once

#include <grpcpp/alarm.h>

#include <chrono>
#include <functional>
#include <memory>

#include "server/engine/request.h"

namespace evaserve {

// Spaces out the messages of one stream. A message costs both sides about as much as a small model
// spends on a token, so tokens that come faster than kMinInterval share one; slower ones are not
// delayed.
//
// Not thread-safe, guarded by the stream's mutex.
class WritePacer {
 public:
  static constexpr std::chrono::milliseconds kMinInterval{2};

  // True if a message may start now, and then it counts as started. Otherwise `retry` will be
  // called, on a thread of gRPC's, when one may; it must call OnRetry(). While a call is due no
  // other `retry` is kept. `retry` has to keep alive what it needs.
  bool TryStart(std::function<void()> retry);

  // Lets go of `retry`.
  void OnRetry() { alarm_.reset(); }

 private:
  TimePoint next_start_ = TimePoint::min();
  std::unique_ptr<grpc::Alarm> alarm_;  // while a call is due. It keeps its function, even called
};

}  // namespace evaserve
