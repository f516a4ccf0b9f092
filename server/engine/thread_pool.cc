#include "server/engine/thread_pool.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/give_way.h"

namespace evaserve {
namespace {

// Longer than the gap between two kernels of a model, shorter than what a sleeping thread costs to
// wake up twice.
constexpr std::chrono::microseconds kSpinTime{40};

void CpuRelax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

template <typename T>
void WaitForChange(const std::atomic<T>& value, T old) {
  const auto give_up = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int i = 0; i < 16; ++i) {
      if (value.load(std::memory_order_acquire) != old) return;
      CpuRelax();
    }
  } while (std::chrono::steady_clock::now() < give_up);
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int num_workers, std::string_view name) : scratch_(num_workers + 1) {
  for (int worker = 1; worker < num_workers; ++worker) {
    helpers_.emplace_back([this, worker] { HelperLoop(worker); });
    pthread_setname_np(helpers_.back().native_handle(),
                       absl::StrCat(std::string(name), "-", worker).c_str());
  }
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  calls_.fetch_add(1);
  calls_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void ThreadPool::Run(int num_tasks, absl::FunctionRef<void(int task, int worker)> fn) {
  if (helpers_.empty() || num_tasks <= 1) {
    for (int task = 0; task < num_tasks; ++task) {
      fn(task, 0);
      GiveWay();
    }
    return;
  }
  fn_ = &fn;
  is_in_background_.store(IsInBackground(), std::memory_order_relaxed);
  unfinished_.store(num_tasks, std::memory_order_relaxed);
  claim_.store(static_cast<uint32_t>(num_tasks), std::memory_order_release);
  WakeHelpers(num_tasks - 1);
  RunTasks(/*worker=*/0);
  while (int left = unfinished_.load(std::memory_order_acquire)) WaitForChange(unfinished_, left);
  if (has_failed_.load(std::memory_order_relaxed)) RethrowFailure();
}

void ThreadPool::WakeHelpers(int count) {
  calls_.fetch_add(1);
  if (count >= static_cast<int>(helpers_.size())) {
    calls_.notify_all();
    return;
  }
  for (int i = 0; i < count; ++i) calls_.notify_one();
}

void ThreadPool::HelperLoop(int worker) {
  uint32_t seen = 0;
  while (true) {
    WaitForChange(calls_, seen);
    seen = calls_.load(std::memory_order_acquire);
    if (stopping_.load()) return;
    RunTasks(worker);
  }
}

void ThreadPool::RunTasks(int worker) {
  int done = 0;
  while (true) {
    // A helper that comes late may claim a task of a later call; that is as good.
    const uint64_t claim = claim_.fetch_add(uint64_t{1} << 32, std::memory_order_acq_rel);
    const uint32_t task = static_cast<uint32_t>(claim >> 32);
    if (task >= static_cast<uint32_t>(claim)) break;
    RunTask(static_cast<int>(task), worker);
    ++done;
  }
  if (done > 0 && unfinished_.fetch_sub(done, std::memory_order_acq_rel) == done) {
    unfinished_.notify_one();
  }
}

// A task that throws is done all the same, so that the call can end.
void ThreadPool::RunTask(int task, int worker) noexcept {
  std::optional<BackgroundScope> in_background;
  if (worker > 0 && is_in_background_.load(std::memory_order_relaxed)) in_background.emplace();
  try {
    (*fn_)(task, worker);
  } catch (...) {
    if (!has_failed_.exchange(true)) failure_ = std::current_exception();
  }
  GiveWay();
}

void ThreadPool::RethrowFailure() {
  has_failed_.store(false);
  std::rethrow_exception(std::exchange(failure_, nullptr));
}

void* ThreadPool::Scratch(int worker, size_t bytes) { return scratch_[worker + 1].Get(bytes); }

}  // namespace evaserve
