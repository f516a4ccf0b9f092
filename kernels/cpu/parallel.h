#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "kernels/worker_pool.h"

namespace evaserve {

// Handing work to another thread and waiting for it costs microseconds: less work than this, in
// multiply-adds (about 20 us of one core), stays on the calling thread.
inline constexpr int64_t kSerialWork = int64_t{1} << 20;

// Calls fn(begin, end, worker) for ranges that cover [0, num_items). All at once on the calling
// thread, as worker 0, if num_items * work_per_item is small or there is one worker.
inline void ParallelFor(WorkerPool& pool, int num_items, int64_t work_per_item,
                        absl::FunctionRef<void(int begin, int end, int worker)> fn) {
  const int64_t work = num_items * work_per_item;
  if (pool.num_workers() == 1 || work < 2 * kSerialWork) {
    if (num_items > 0) fn(0, num_items, 0);
    return;
  }
  // Several tasks a worker even out what they cost, as long as none is too small to hand over.
  const int64_t wanted = std::min<int64_t>(work * 2 / kSerialWork, 8 * pool.num_workers());
  const int num_tasks = static_cast<int>(std::clamp<int64_t>(wanted, 1, num_items));
  pool.Run(num_tasks, [&](int task, int worker) {
    const int begin = static_cast<int>(int64_t{num_items} * task / num_tasks);
    const int end = static_cast<int>(int64_t{num_items} * (task + 1) / num_tasks);
    fn(begin, end, worker);
  });
}

}  // namespace evaserve
