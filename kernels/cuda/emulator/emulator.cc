#include "kernels/cuda/emulator/emulator.h"

#include <algorithm>
#include <boost/context/fiber.hpp>
#include <boost/context/pooled_fixedsize_stack.hpp>
#include <cstring>
#include <memory>
#include <numeric>

#include "absl/strings/str_cat.h"

namespace evaserve::emulator {

struct ThreadFiber {
  boost::context::fiber thread;
  boost::context::fiber scheduler;
};

namespace {

constexpr size_t kStackBytes = 128 << 10;
constexpr size_t kSharedAlignment = 1024;
// A warp that makes progress goes on for so many turns at most before another one runs.
constexpr int kTurnsOfWarp = 64;

thread_local Thread* current = nullptr;

uint64_t NextRandom(uint64_t& state) {  // xorshift64
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

bool Chance(int one_in) { return current->block->seed != 0 && Random(one_in) == 0; }

int RandomOf(Block& block, int limit) {
  if (block.seed == 0) return 0;
  return static_cast<int>(NextRandom(block.random_state) % static_cast<uint64_t>(limit));
}

using StackPool = boost::context::pooled_fixedsize_stack;

class BlockRun {
 public:
  BlockRun(const LaunchOptions& options, int index, absl::FunctionRef<void()> kernel,
           StackPool& stacks, char* shared);

  std::string Run();

 private:
  void Start(Thread& thread, StackPool& stacks);
  void RunWarp(int warp);
  void Resume(Thread& thread);
  bool IsDone(int warp) const;
  // False if there is none.
  bool LandOne();
  std::string DescribeDeadlock() const;

  absl::FunctionRef<void()> kernel_;
  Block block_;
  std::vector<ThreadFiber> fibers_;
  int num_running_ = 0;
};

BlockRun::BlockRun(const LaunchOptions& options, int index, absl::FunctionRef<void()> kernel,
                   StackPool& stacks, char* shared)
    : kernel_(kernel), fibers_(options.block_size), num_running_(options.block_size) {
  block_.index = index;
  block_.num_blocks = options.num_blocks;
  block_.threads.resize(options.block_size);
  block_.warps.resize(options.block_size / kWarpSize);
  block_.warpgroups.resize((options.block_size + kWarpgroupSize - 1) / kWarpgroupSize);
  block_.shared = shared;
  block_.shared_bytes = options.shared_bytes;
  block_.seed = options.seed;
  block_.random_state = options.seed * 0x9e3779b97f4a7c15u + index + 1;
  for (int i = 0; i < options.block_size; ++i) {
    Thread& thread = block_.threads[i];
    thread.index = i;
    thread.block = &block_;
    thread.fiber = &fibers_[i];
    Start(thread, stacks);
  }
}

void BlockRun::Start(Thread& thread, StackPool& stacks) {
  thread.fiber->thread = boost::context::fiber(std::allocator_arg, stacks,
                                               [this, &thread](boost::context::fiber&& scheduler) {
                                                 thread.fiber->scheduler = std::move(scheduler);
                                                 thread.state = "running";
                                                 kernel_();
                                                 thread.is_done = true;
                                                 ++block_.progress;
                                                 return std::move(thread.fiber->scheduler);
                                               });
}

void BlockRun::Resume(Thread& thread) {
  current = &thread;
  thread.fiber->thread = std::move(thread.fiber->thread).resume();
  if (thread.is_done) --num_running_;
}

bool BlockRun::IsDone(int warp) const {
  const auto begin = block_.threads.begin() + warp * kWarpSize;
  return std::all_of(begin, begin + kWarpSize, [](const Thread& thread) { return thread.is_done; });
}

void BlockRun::RunWarp(int warp) {
  for (int turn = 0; turn < kTurnsOfWarp && !IsDone(warp); ++turn) {
    const uint64_t before = block_.progress;
    const int first = RandomOf(block_, kWarpSize);
    for (int i = 0; i < kWarpSize; ++i) {
      Thread& thread = block_.threads[warp * kWarpSize + (first + i) % kWarpSize];
      if (!thread.is_done) Resume(thread);
      if (!block_.error.empty()) return;
    }
    if (block_.progress == before || RandomOf(block_, 4) == 1) return;
  }
}

bool BlockRun::LandOne() {
  if (block_.asynchronous.empty()) return false;
  const auto it =
      block_.asynchronous.begin() + RandomOf(block_, static_cast<int>(block_.asynchronous.size()));
  const std::function<void()> land = std::move(*it);
  block_.asynchronous.erase(it);
  land();
  ++block_.progress;
  return true;
}

std::string BlockRun::DescribeDeadlock() const {
  std::string text = "deadlock:";
  for (size_t i = 0; i < block_.threads.size(); i += kWarpSize) {
    const Thread& thread = block_.threads[i];
    absl::StrAppend(&text, " thread ", i, ": ", thread.is_done ? "done" : thread.state, ";");
  }
  return text;
}

std::string BlockRun::Run() {
  std::vector<int> order(block_.warps.size());
  std::iota(order.begin(), order.end(), 0);
  while (num_running_ > 0) {
    for (int i = static_cast<int>(order.size()) - 1; i > 0 && block_.seed != 0; --i) {
      std::swap(order[i], order[RandomOf(block_, i + 1)]);
    }
    const uint64_t before = block_.progress;
    for (const int warp : order) {
      RunWarp(warp);
      if (!block_.error.empty()) return block_.error;
    }
    if (block_.progress == before && num_running_ > 0 && !LandOne()) return DescribeDeadlock();
  }
  for (const Warpgroup& group : block_.warpgroups) {
    for (const auto& wgmmas : group.wgmmas) {
      if (!wgmmas.empty()) return "a wgmma was never waited for";
    }
  }
  return "";
}

}  // namespace

Thread& Current() { return *current; }

void Yield() {
  Thread* thread = current;
  thread->fiber->scheduler = std::move(thread->fiber->scheduler).resume();
  current = thread;
}

void Fail(const std::string& what) {
  Thread& thread = Current();
  if (thread.block->error.empty())
    thread.block->error = absl::StrCat("thread ", thread.index, ": ", what);
  while (true) Yield();  // until the launch ends this fiber
}

int Random(int limit) { return RandomOf(*Current().block, limit); }

void ArriveAtNamedBarrier(int id, int num_threads) {
  if (id < 0 || id >= kNumNamedBarriers) Fail(absl::StrCat("there is no barrier ", id));
  NamedBarrier& barrier = Current().block->barriers[id];
  if (barrier.num_arrived > 0 && barrier.num_expected != num_threads) {
    Fail(absl::StrCat("barrier ", id, " is for ", barrier.num_expected, " threads and ",
                      num_threads));
  }
  barrier.num_expected = num_threads;
  ++Current().block->progress;
  if (++barrier.num_arrived == num_threads) {
    barrier.num_arrived = 0;
    ++barrier.generation;
  }
}

void SyncNamedBarrier(int id, int num_threads) {
  const uint64_t generation = Current().block->barriers[id].generation;
  ArriveAtNamedBarrier(id, num_threads);
  WaitUntil("bar.sync", [&] { return Current().block->barriers[id].generation != generation; });
}

void DoLater(std::function<void()> land) {
  ++Current().block->progress;
  if (Chance(8)) {
    land();
  } else {
    Current().block->asynchronous.push_back(std::move(land));
  }
}

absl::Status Launch(const LaunchOptions& options, absl::FunctionRef<void()> kernel) {
  if (options.block_size <= 0 || options.block_size % kWarpSize != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("block_size is ", options.block_size, ", not a multiple of ", kWarpSize));
  }
  StackPool stacks(kStackBytes);
  const size_t bytes = (options.shared_bytes / kSharedAlignment + 1) * kSharedAlignment;
  const std::unique_ptr<char, decltype(&std::free)> shared(
      static_cast<char*>(std::aligned_alloc(kSharedAlignment, bytes)), &std::free);
  for (int i = 0; i < options.num_blocks; ++i) {
    std::memset(shared.get(), 0xff, bytes);  // NaN in every type
    BlockRun run(options, i, kernel, stacks, shared.get());
    if (const std::string error = run.Run(); !error.empty()) {
      return absl::InternalError(absl::StrCat("block ", i, ": ", error));
    }
  }
  return absl::OkStatus();
}

}  // namespace evaserve::emulator
