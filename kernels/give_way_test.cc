#include "kernels/give_way.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <vector>

#include "kernels/linear.h"
#include "kernels/rope_table.h"
#include "kernels/testing/counted_yields.h"

namespace evaserve {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// How often this thread gives way in 2 ms; it is asked once at least.
int Yields() {
  num_yields = 0;
  const auto end = Clock::now() + milliseconds(2);
  do GiveWay();
  while (Clock::now() < end);
  return num_yields;
}

TEST(GiveWayTest, OnlyInTheBackgroundAndNotAllTheTime) {
  EXPECT_EQ(Yields(), 0);
  {
    const BackgroundScope in_background;
    const int yields = Yields();
    EXPECT_GE(yields, 1);
    EXPECT_LE(yields, 40);
    std::thread other([] { EXPECT_EQ(Yields(), 0); });
    other.join();
  }
  EXPECT_EQ(Yields(), 0);
}

// In the work of a model's load that takes longest, also before its end: each takes a multiple of
// a turn.
TEST(GiveWayTest, LongWorkGivesWay) {
  const BackgroundScope in_background;
  const std::vector<float> weights(512 * 4096);
  const WeightView view = {weights.data(), DType::kFloat32, 512, 4096};
  num_yields = 0;
  PackedWeight::Pack({&view, 1}, DType::kBFloat16);
  EXPECT_GE(num_yields, 3);

  num_yields = 0;
  RopeTables({.head_dim = 128, .num_positions = 8192});
  EXPECT_GE(num_yields, 3);
}

}  // namespace
}  // namespace evaserve
