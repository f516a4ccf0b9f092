#include "kernels/give_way.h"

#include <sched.h>

#include <chrono>

namespace evaserve {
namespace {

using Clock = std::chrono::steady_clock;

// How long a thread keeps its core, about. Giving way costs a hundredth of it where nobody waits.
constexpr std::chrono::microseconds kTurn{50};

thread_local bool is_in_background = false;
thread_local Clock::time_point turn_end;

}  // namespace

BackgroundScope::BackgroundScope() { is_in_background = true; }

BackgroundScope::~BackgroundScope() { is_in_background = false; }

bool IsInBackground() { return is_in_background; }

void GiveWay() {
  if (!is_in_background || Clock::now() < turn_end) return;
  sched_yield();
  turn_end = Clock::now() + kTurn;
}

}  // namespace evaserve
