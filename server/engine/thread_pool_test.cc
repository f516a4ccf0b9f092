#include "server/engine/thread_pool.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <latch>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "kernels/give_way.h"

namespace evaserve {
namespace {

TEST(ThreadPoolTest, RunsEveryTaskOnce) {
  for (int num_workers : {1, 2, 4}) {
    ThreadPool pool(num_workers);
    for (int num_tasks : {0, 1, 2, 3, 100}) {
      std::vector<std::atomic<int>> runs(num_tasks);

      pool.Run(num_tasks, [&](int task, int) { ++runs[task]; });

      for (const auto& count : runs) ASSERT_EQ(count, 1);
    }
  }
}

TEST(ThreadPoolTest, RunReturnsAfterItsTasksAndShowsTheirWrites) {
  ThreadPool pool(4);
  std::vector<int> values(64);
  for (int round = 1; round <= 500; ++round) {
    pool.Run(64, [&](int task, int) { values[task] = round * task; });

    for (int task = 0; task < 64; ++task) ASSERT_EQ(values[task], round * task);
  }
}

TEST(ThreadPoolTest, OneWorkerIndexNeverRunsTwoTasksAtOnce) {
  ThreadPool pool(4);
  std::vector<std::atomic<int>> busy(4);
  std::atomic<int> overlaps{0};
  for (int round = 0; round < 500; ++round) {
    pool.Run(16, [&](int, int worker) {
      if (busy[worker].fetch_add(1) != 0) ++overlaps;
      busy[worker].fetch_sub(1);
    });
  }
  EXPECT_EQ(overlaps, 0);
}

TEST(ThreadPoolTest, TasksAreInTheBackgroundWhereTheirCallerIs) {
  ThreadPool pool(4);
  for (int round = 0; round < 50; ++round) {
    const bool is_in_background = round % 2 == 0;
    std::optional<BackgroundScope> scope;
    if (is_in_background) scope.emplace();
    std::latch all_there(4);
    std::atomic<int> num_right{0};
    pool.Run(4, [&](int, int) {
      all_there.arrive_and_wait();
      if (IsInBackground() == is_in_background) ++num_right;
    });
    ASSERT_EQ(num_right, 4);
  }
}

// The tasks wait for each other, so this hangs unless every worker runs one.
TEST(ThreadPoolTest, AllWorkersRunAtTheSameTime) {
  ThreadPool pool(4);
  for (int round = 0; round < 50; ++round) {
    std::latch all_there(4);
    pool.Run(4, [&](int, int) { all_there.arrive_and_wait(); });
  }
}

TEST(ThreadPoolTest, OneWorkerRunsInlineAndInOrder) {
  ThreadPool pool(1);
  std::vector<int> order;

  pool.Run(3, [&](int task, int worker) {
    EXPECT_EQ(worker, 0);
    order.push_back(task);
  });

  EXPECT_EQ(order, (std::vector<int>{0, 1, 2}));
}

TEST(ThreadPoolTest, OneTaskRunsOnTheCaller) {
  ThreadPool pool(4);
  std::thread::id runner;

  pool.Run(1, [&](int, int) { runner = std::this_thread::get_id(); });

  EXPECT_EQ(runner, std::this_thread::get_id());
}

TEST(ThreadPoolTest, HelpersAreNamed) {
  ThreadPool pool(2, "test-pool");
  std::latch both_there(2);
  std::string name;

  pool.Run(2, [&](int, int worker) {
    both_there.arrive_and_wait();
    char buffer[16] = {};
    pthread_getname_np(pthread_self(), buffer, sizeof(buffer));
    if (worker == 1) name = buffer;
  });

  EXPECT_EQ(name, "test-pool-1");
}

TEST(ThreadPoolTest, ScratchIsAlignedItsOwnAndGrows) {
  ThreadPool pool(2);
  std::vector<void*> buffers;
  for (int worker : {-1, 0, 1}) {
    void* memory = pool.Scratch(worker, 1000);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % 64, 0u);
    std::memset(memory, 1, 1000);
    buffers.push_back(memory);
  }
  EXPECT_NE(buffers[0], buffers[1]);
  EXPECT_NE(buffers[1], buffers[2]);

  std::memset(pool.Scratch(0, 100000), 1, 100000);
  EXPECT_EQ(pool.Scratch(0, 5), pool.Scratch(0, 100000)) << "it never shrinks";
}

TEST(ThreadPoolTest, WhatATaskThrowsIsThrownWhenAllAreDone) {
  for (const int num_workers : {1, 4}) {
    ThreadPool pool(num_workers);
    for (int round = 0; round < 200; ++round) {
      std::atomic<int> runs{0};
      EXPECT_THROW(pool.Run(16,
                            [&](int task, int) {
                              ++runs;
                              if (task >= 14) throw std::bad_alloc();
                            }),
                   std::bad_alloc);
      EXPECT_GE(runs, 15);

      pool.Run(16, [&](int, int) { ++runs; });  // as if nothing had been
      EXPECT_GE(runs, 31);
    }
  }
}

TEST(ThreadPoolTest, ScratchThrowsWithoutMemoryAndCanBeUsedAgain) {
  ThreadPool pool(2);
  for (const int worker : {-1, 0, 1}) {
    EXPECT_THROW(pool.Scratch(worker, SIZE_MAX / 2), std::bad_alloc);
    std::memset(pool.Scratch(worker, 1000), 1, 1000);
  }
}

TEST(ThreadPoolTest, StopsWithoutEverHavingRun) { ThreadPool pool(4); }

}  // namespace
}  // namespace evaserve
