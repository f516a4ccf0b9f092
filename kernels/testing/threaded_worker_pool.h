#pragma once

#include <atomic>
#include <deque>
#include <thread>
#include <vector>

#include "kernels/serial_worker_pool.h"
#include "kernels/worker_pool.h"

namespace evaserve {

// Starts its threads anew in each Run: slow, simple, and enough to show a race.
class ThreadedWorkerPool final : public WorkerPool {
 public:
  explicit ThreadedWorkerPool(int num_workers) : memory_(num_workers + 1) {}

  int num_workers() const override { return static_cast<int>(memory_.size()) - 1; }
  // Calls of Run(). None: there was too little work to share, and nothing was shown.
  int num_runs() const { return num_runs_; }

  void Run(int num_tasks, absl::FunctionRef<void(int task, int worker)> fn) override {
    ++num_runs_;
    std::atomic<int> next{0};
    std::vector<std::thread> threads;
    for (int worker = 0; worker < num_workers(); ++worker) {
      threads.emplace_back([&, worker] {
        for (int task = next++; task < num_tasks; task = next++) fn(task, worker);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  void* Scratch(int worker, size_t bytes) override {
    return memory_.at(worker + 1).Scratch(0, bytes);
  }

 private:
  std::deque<SerialWorkerPool> memory_;
  int num_runs_ = 0;
};

}  // namespace evaserve
