#include "server/heap.h"

#include <malloc.h>

#include <algorithm>

#include "server/metrics/process_metrics.h"

namespace evaserve {
namespace {

constexpr int64_t kWorthIt = 32 << 20;

}  // namespace

void HeapTrimmer::Trim() {
  const int64_t resident_bytes = ResidentBytes();
  resident_bytes_ = std::min(resident_bytes_, resident_bytes);
  // What was given back still counts as free to the allocator, so that alone says nothing.
  const bool much_is_free = static_cast<int64_t>(mallinfo2().fordblks) >= kWorthIt;
  if (!much_is_free || resident_bytes < resident_bytes_ + kWorthIt) return;
  malloc_trim(0);
  resident_bytes_ = ResidentBytes();
}

}  // namespace evaserve
