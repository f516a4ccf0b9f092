#pragma once

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

// Counts how often threads yield. In one source file of a test program, whose sched_yield() stands
// in for the system's.

namespace evaserve {

inline thread_local int num_yields = 0;  // of this thread

}  // namespace evaserve

extern "C" int sched_yield() noexcept {
  ++evaserve::num_yields;
  return static_cast<int>(syscall(SYS_sched_yield));
}
