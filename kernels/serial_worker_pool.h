#pragma once

#include <array>
#include <cstdlib>
#include <memory>

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
  struct Buffer {
    struct Free {
      void operator()(void* p) const { std::free(p); }
    };
    void* Get(size_t bytes) {
      if (bytes > size) {
        size = (bytes + 4095) / 4096 * 4096;
        data.reset(std::aligned_alloc(64, size));
      }
      return data.get();
    }
    std::unique_ptr<void, Free> data;
    size_t size = 0;
  };

  std::array<Buffer, 2> buffers_;
};

}  // namespace evaserve
