#include "client/interrupt.h"

#include <csignal>

namespace evaserve {
namespace {

constexpr int kStopWaiting = SIGUSR1;  // from the destructor

sigset_t SetOf(std::initializer_list<int> signals) {
  sigset_t set;
  sigemptyset(&set);
  for (int signal : signals) sigaddset(&set, signal);
  return set;
}

void WaitForInterrupt(Cancellation& cancellation) {
  const sigset_t first = SetOf({SIGINT, SIGTERM, kStopWaiting});
  int signal = 0;
  sigwait(&first, &signal);
  if (signal == kStopWaiting) return;
  cancellation.Cancel();

  // Whoever sends a second one does not want to wait: let it end the process.
  const sigset_t second = SetOf({SIGINT, SIGTERM});
  pthread_sigmask(SIG_UNBLOCK, &second, nullptr);
  const sigset_t stop = SetOf({kStopWaiting});
  sigwait(&stop, &signal);
}

}  // namespace

InterruptGuard::InterruptGuard(Cancellation& cancellation) {
  const sigset_t blocked = SetOf({SIGINT, SIGTERM, kStopWaiting});
  pthread_sigmask(SIG_BLOCK, &blocked, nullptr);
  thread_ = std::thread([&cancellation] { WaitForInterrupt(cancellation); });
}

InterruptGuard::~InterruptGuard() {
  pthread_kill(thread_.native_handle(), kStopWaiting);
  thread_.join();
}

}  // namespace evaserve
