#include "server/poller.h"

#include <pthread.h>

#include <utility>

#include "absl/time/time.h"

namespace evaserve {

Poller::Poller(const char* name, std::chrono::milliseconds interval, std::function<void()> task)
    : interval_(interval), task_(std::move(task)), thread_([this, name] { Run(name); }) {}

Poller::~Poller() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

void Poller::Run(const char* name) {
  pthread_setname_np(pthread_self(), name);
  while (Sleep()) task_();
}

bool Poller::Sleep() {
  absl::MutexLock lock(&mutex_);
  return !mutex_.AwaitWithTimeout(absl::Condition(&stopping_), absl::FromChrono(interval_));
}

}  // namespace evaserve
