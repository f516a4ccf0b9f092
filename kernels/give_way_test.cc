#include "kernels/give_way.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "kernels/linear.h"
#include "kernels/rope_table.h"

namespace {

std::atomic<int> num_yields = 0;

}  // namespace

// Instead of the system's.
extern "C" int sched_yield() noexcept {
  ++num_yields;
  return 0;
}

namespace evaserve {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// How often a thread that works for `duration` gives way.
int YieldsIn(milliseconds duration) {
  num_yields = 0;
  const auto end = Clock::now() + duration;
  while (Clock::now() < end) GiveWay();
  return num_yields;
}

TEST(GiveWayTest, OnlyInTheBackgroundAndNotAllTheTime) {
  EXPECT_EQ(YieldsIn(milliseconds(2)), 0);
  {
    const BackgroundScope in_background;
    const int yields = YieldsIn(milliseconds(2));
    EXPECT_GE(yields, 1);
    EXPECT_LE(yields, 40);
    std::thread other([] { EXPECT_EQ(YieldsIn(milliseconds(2)), 0); });
    other.join();
  }
  EXPECT_EQ(YieldsIn(milliseconds(2)), 0);
}

// In the work of a model's load that takes longest.
TEST(GiveWayTest, LongWorkGivesWay) {
  const BackgroundScope in_background;
  const std::vector<float> weights(512 * 4096);
  const WeightView view = {weights.data(), DType::kFloat32, 512, 4096};
  num_yields = 0;
  PackedWeight::Pack({&view, 1}, DType::kBFloat16);
  EXPECT_GE(num_yields, 10);

  num_yields = 0;
  RopeTables({.head_dim = 128, .num_positions = 8192});
  EXPECT_GE(num_yields, 10);
}

}  // namespace
}  // namespace evaserve
