#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <deque>

#include "kernels/serial_worker_pool.h"
#include "kernels/worker_pool.h"

namespace evaserve {

// LibTorch's threads, as many as at::get_num_threads says.
class TorchWorkerPool final : public WorkerPool {
 public:
  TorchWorkerPool()
      : memory_(1 + (at::in_parallel_region() ? 1 : std::max(at::get_num_threads(), 1))) {}

  int num_workers() const override { return static_cast<int>(memory_.size()) - 1; }

  void Run(int num_tasks, absl::FunctionRef<void(int task, int worker)> fn) override {
    at::parallel_for(0, num_tasks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        fn(static_cast<int>(task), num_workers() == 1 ? 0 : at::get_thread_num());
      }
    });
  }

  void* Scratch(int worker, size_t bytes) override {
    return memory_.at(worker + 1).Scratch(0, bytes);
  }

 private:
  std::deque<SerialWorkerPool> memory_;
};

}  // namespace evaserve
