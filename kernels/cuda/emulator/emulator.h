#pragma once

// Runs a CUDA kernel on the CPU: one fiber per thread, one block after the other. With ptx.h, whose
// wrappers have a host model (ptx_host.h), the same kernel source runs here and on a device.
//
// The model is adversarial, not fast. What is asynchronous on a device happens as late as it may,
// and until then its destination holds NaN; shared memory starts as NaN; warps and lanes run in an
// order that the seed shuffles; a deadlock is an error that says who waits for what. Not modelled:
// fences between proxies, bank conflicts, clusters, races of plain loads and stores.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace evaserve::emulator {

inline constexpr int kWarpSize = 32;
inline constexpr int kWarpgroupSize = 128;
inline constexpr int kWarpsPerGroup = kWarpgroupSize / kWarpSize;
inline constexpr int kNumNamedBarriers = 16;

struct LaunchOptions {
  int num_blocks = 1;
  int block_size = kWarpSize;  // threads
  size_t shared_bytes = 0;
  uint64_t seed = 0;  // of the schedule; 0: threads in their order, asynchronous work in its order
};

// Runs kernel() once per thread. Internal, with the block and what its threads do, if the threads
// deadlock or misuse an instruction.
absl::Status Launch(const LaunchOptions& options, absl::FunctionRef<void()> kernel);

// A 16-byte copy of one thread (cp.async).
struct PendingCopy {
  char* to = nullptr;
  char data[16];
  int group = 0;
};

struct Block;
struct ThreadFiber;

struct Thread {
  int index = 0;  // in the block
  Block* block = nullptr;
  ThreadFiber* fiber = nullptr;
  bool is_done = false;
  const char* state = "not started";  // what it waits for
  std::deque<PendingCopy> copies;
  int copy_group = 0;

  int lane() const { return index % kWarpSize; }
};

// Arguments of the instruction that a warp (or warpgroup) is about to execute together.
template <int kThreads>
struct Rendezvous {
  const void* arguments[kThreads] = {};
  const char* instruction[kThreads] = {};
  bool is_waiting[kThreads] = {};
  int num_waiting = 0;
};

struct PendingWgmma {
  std::function<void()> execute;
  const float* accumulator = nullptr;  // of the warp's first thread
  int group = 0;
};

struct Warpgroup {
  Rendezvous<kWarpgroupSize> rendezvous;
  std::deque<PendingWgmma> wgmmas[kWarpsPerGroup];  // the rows of each warp
  int group = 0;
};

struct NamedBarrier {
  int num_arrived = 0;
  int num_expected = 0;
  uint64_t generation = 0;
};

struct Block {
  int index = 0;
  int num_blocks = 0;
  std::vector<Thread> threads;
  std::vector<Rendezvous<kWarpSize>> warps;
  std::vector<Warpgroup> warpgroups;
  NamedBarrier barriers[kNumNamedBarriers];
  std::vector<std::function<void()>> asynchronous;  // bulk copies that have not landed
  char* shared = nullptr;
  size_t shared_bytes = 0;
  uint64_t seed = 0;
  uint64_t random_state = 0;
  uint64_t progress = 0;  // counts what may let another thread go on
  std::string error;      // the first one
};

// The running thread. Valid within a kernel.
Thread& Current();

// Lets other threads run.
void Yield();

// Ends the launch with an error of the running thread.
[[noreturn]] void Fail(const std::string& what);

// 0 <= result < limit; 0 without a seed.
int Random(int limit);

template <typename Predicate>
void WaitUntil(const char* what, Predicate&& is_true) {
  Thread& thread = Current();
  while (!is_true()) {
    thread.state = what;
    Yield();
  }
  thread.state = "running";
  ++thread.block->progress;
}

// The last thread of `group` to come calls execute(arguments of all) for all of them.
template <int kThreads, typename Execute>
void ExecuteTogether(Rendezvous<kThreads>& group, const char* instruction, const void* arguments,
                     Execute&& execute) {
  const int i = Current().index % kThreads;
  group.arguments[i] = arguments;
  group.instruction[i] = instruction;
  group.is_waiting[i] = true;
  ++Current().block->progress;
  if (++group.num_waiting < kThreads) {
    return WaitUntil(instruction, [&] { return !group.is_waiting[i]; });
  }
  for (const char* other : group.instruction) {
    if (std::string_view(other) != instruction) {
      Fail(std::string("threads diverge: one is at ") + other + ", another at " + instruction);
    }
  }
  execute(group.arguments);
  group.num_waiting = 0;
  for (bool& is_waiting : group.is_waiting) is_waiting = false;
}

template <typename Execute>
void ExecuteAsWarp(const char* instruction, const void* arguments, Execute&& execute) {
  ExecuteTogether(Current().block->warps[Current().index / kWarpSize], instruction, arguments,
                  execute);
}

// bar.sync and bar.arrive.
void SyncNamedBarrier(int barrier, int num_threads);
void ArriveAtNamedBarrier(int barrier, int num_threads);

// Runs `land` when nothing else can run, or earlier, by chance.
void DoLater(std::function<void()> land);

}  // namespace evaserve::emulator
