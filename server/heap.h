#pragma once

#include <cstdint>

namespace evaserve {

// Gives freed memory back to the system. The allocator keeps what was freed, so a peak of
// connections or of large messages would be paid for until the end. Not thread-safe.
class HeapTrimmer {
 public:
  // To be called again and again. Does nothing unless the process has grown since the last time and
  // much of its memory is free, as it holds up all who allocate for a moment.
  void Trim();

 private:
  int64_t resident_bytes_ = 0;  // the least since something was given back
};

}  // namespace evaserve
