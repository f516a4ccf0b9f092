#pragma once

namespace evaserve {

// While it exists, this thread works in the background: nobody waits for what it does as those do
// whose requests other threads answer. At most one on a thread at a time.
class BackgroundScope {
 public:
  BackgroundScope();
  ~BackgroundScope();
  BackgroundScope(const BackgroundScope&) = delete;
  BackgroundScope& operator=(const BackgroundScope&) = delete;
};

// If this thread works in the background, lets those that wait for its core run. For loops that
// take long, every few microseconds.
//
// A low priority alone does not do that: once its turn has come, a thread keeps its core for some
// milliseconds, and Linux moves none that waits for it to a core whose own pauses are short
// (sched_migration_cost), although that one is free.
void GiveWay();

}  // namespace evaserve
