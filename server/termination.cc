#include "server/termination.h"

#include <pthread.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

namespace evaserve {
namespace {

sigset_t EndingSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGALRM);  // of EndWithin()
  return signals;
}

}  // namespace

Termination::Termination() {
  const sigset_t signals = EndingSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  // A log reader that has gone away is no reason to end.
  signal(SIGPIPE, SIG_IGN);
  thread_ = std::thread([this] { Listen(); });
}

Termination::~Termination() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  // Blocked in all threads: it wakes sigwait(). NOLINTNEXTLINE(bugprone-bad-signal-to-kill-thread)
  pthread_kill(thread_.native_handle(), SIGTERM);
  thread_.join();
}

void Termination::Wait() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&requested_));
}

void Termination::Request() {
  absl::MutexLock lock(&mutex_);
  requested_ = true;
}

void Termination::EndWithin(std::chrono::seconds time) {
  alarm(static_cast<unsigned>(time.count()));
}

void Termination::Listen() {
  pthread_setname_np(pthread_self(), "eva-signals");
  const sigset_t signals = EndingSignals();
  for (;;) {
    int signal = 0;
    sigwait(&signals, &signal);
    if (signal == SIGALRM) {
      spdlog::critical("the server does not end, something in it hangs");
      _exit(1);
    }
    absl::MutexLock lock(&mutex_);
    if (stopping_) return;
    if (requested_) _exit(1);
    requested_ = true;
  }
}

}  // namespace evaserve
