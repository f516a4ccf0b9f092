#include "server/rpc/write_pacer.h"

#include <utility>

namespace evaserve {

bool WritePacer::TryStart(std::function<void()> retry) {
  const TimePoint now = Clock::now();
  if (now >= next_start_) {
    next_start_ = now + kMinInterval;
    return true;
  }
  if (alarm_ == nullptr) {
    alarm_ = std::make_unique<grpc::Alarm>();
    alarm_->Set(std::chrono::system_clock::now() + (next_start_ - now),
                [retry = std::move(retry)](bool /*expired*/) { retry(); });
  }
  return false;
}

}  // namespace evaserve
