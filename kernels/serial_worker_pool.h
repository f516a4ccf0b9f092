#pragma once

#include <array>

#include "kernels/aligned_buffer.h"
#include "kernels/worker_pool.h"

namespace evaserve {

// Runs every task on the calling thread. For tests, tools and benchmarks.
class SerialWorkerPool final : public WorkerPool {
 public:
  int num_workers() const override { return 1; }

  void Run(int num_tasks, absl::FunctionRef<void(int task, int worker)> fn) override {
    for (int task = 0; task < num_tasks; ++task) fn(task, 0);
  }

  void* Scratch(int worker, size_t bytes) override { return buffers_.at(worker + 1).Get(bytes); }

 private:
  std::array<AlignedBuffer, 2> buffers_;
};

}  // namespace evaserve
