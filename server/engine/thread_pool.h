#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <string_view>
#include <thread>
#include <vector>

#include "kernels/aligned_buffer.h"
#include "kernels/worker_pool.h"

namespace evaserve {

// A WorkerPool with threads of its own.
//
// A model runs hundreds of kernels of a few microseconds in a row, then nothing for a while. So an
// idle helper first looks out for the next call for kSpinTime, which costs it nothing to answer,
// and then sleeps, so that an idle server uses no CPU and one with a CPU quota does not burn it.
//
// Tasks of a caller that is within a BackgroundScope are, on whatever thread.
class ThreadPool final : public WorkerPool {
 public:
  // Starts num_workers - 1 threads; with one worker every task runs inline. `name`, at most 11
  // bytes, begins their names: "NAME-1", "NAME-2", ...
  explicit ThreadPool(int num_workers, std::string_view name = "eva-worker");

  // Joins the threads. No call of Run() may be going on.
  ~ThreadPool() override;

  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_workers() const override { return static_cast<int>(helpers_.size()) + 1; }
  void Run(int num_tasks, absl::FunctionRef<void(int task, int worker)> fn) override;
  void* Scratch(int worker, size_t bytes) override;

 private:
  struct alignas(64) ScratchBuffer : AlignedBuffer {};

  void HelperLoop(int worker);
  void WakeHelpers(int count);
  void RunTasks(int worker);
  void RunTask(int task, int worker) noexcept;
  void RethrowFailure();

  // The call that is going on. A worker reads `fn_` only after it has claimed a task, and the call
  // does not return before that task is done.
  const absl::FunctionRef<void(int task, int worker)>* fn_ = nullptr;
  alignas(64) std::atomic<uint64_t> claim_{0};  // next task << 32 | number of tasks
  alignas(64) std::atomic<int> unfinished_{0};  // tasks of the call
  alignas(64) std::atomic<uint32_t> calls_{0};  // changes with every call: helpers look out for it
  std::atomic<bool> is_in_background_{false};   // the call; read as fn_ is
  std::atomic<bool> stopping_{false};
  std::atomic<bool> has_failed_{false};
  std::exception_ptr failure_;  // what the first of a call's tasks to do so has thrown

  std::vector<ScratchBuffer> scratch_;  // of worker w at w + 1
  std::vector<std::thread> helpers_;
};

}  // namespace evaserve
