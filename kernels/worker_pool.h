#pragma once

#include <cstddef>

#include "absl/functional/function_ref.h"

namespace evaserve {

// The threads and the scratch memory that a kernel may use. The caller owns both; a kernel starts
// no thread and keeps nothing between two calls.
//
// Not thread-safe: one kernel at a time.
class WorkerPool {
 public:
  virtual ~WorkerPool() = default;

  // At least 1: the calling thread is a worker too.
  virtual int num_workers() const = 0;

  // Calls `fn(task, worker)` once for every task in [0, num_tasks), in any order, and returns when
  // all are done. Two calls with the same worker index never overlap. What a call throws is thrown
  // here, the first if several throw; the others are called or not.
  virtual void Run(int num_tasks, absl::FunctionRef<void(int task, int worker)> fn) = 0;

  // Memory of `worker`, at least `bytes` long, 64-byte aligned, uninitialised. It grows and never
  // shrinks, so a steady load allocates nothing. A second call may move it and loses its contents.
  // Throws std::bad_alloc if there is no memory.
  // Worker -1 is the caller of Run(), for what all workers share.
  virtual void* Scratch(int worker, size_t bytes) = 0;
};

}  // namespace evaserve
