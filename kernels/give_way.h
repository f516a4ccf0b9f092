#pragma once

namespace evaserve {

// While it exists, the work of this thread is less urgent than that of threads that answer
// requests. At most one on a thread at a time.
class BackgroundScope {
 public:
  BackgroundScope();
  ~BackgroundScope();
  BackgroundScope(const BackgroundScope&) = delete;
  BackgroundScope& operator=(const BackgroundScope&) = delete;
};

// Whether this thread is within one.
bool IsInBackground();

// Within a BackgroundScope, lets threads that wait for this one's core run. For loops that take
// long, every few microseconds.
//
// A low priority alone does not do that: once its turn has come, a thread keeps its core for some
// milliseconds, and Linux does not migrate a thread that waits for it to another core whose idle
// periods are short (sched_migration_cost), even if that core is idle.
void GiveWay();

}  // namespace evaserve
