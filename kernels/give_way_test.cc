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

// How often this thread gives way in 2 ms.
int Yields() {
  num_yields = 0;
  const auto end = Clock::now() + milliseconds(2);
  while (Clock::now() < end) GiveWay();
  return num_yields;
}

// Whether `work` gives way. A short one is repeated, as it need not each time.
template <typename Work>
bool GivesWay(const Work& work) {
  num_yields = 0;
  for (int i = 0; i < 1000 && num_yields == 0; ++i) work();
  return num_yields > 0;
}

TEST(GiveWayTest, OnlyInTheBackgroundAndNotAllTheTime) {
  EXPECT_EQ(Yields(), 0);
  {
    const BackgroundScope in_background;
    EXPECT_TRUE(GivesWay(Yields));
    EXPECT_LE(Yields(), 40);
    std::thread other([] { EXPECT_EQ(Yields(), 0); });
    other.join();
  }
  EXPECT_EQ(Yields(), 0);
}

// In the work of a model's load that takes longest.
TEST(GiveWayTest, LongWorkGivesWay) {
  const BackgroundScope in_background;
  const std::vector<float> weights(512 * 4096);
  const WeightView view = {weights.data(), DType::kFloat32, 512, 4096};
  EXPECT_TRUE(GivesWay([&] { PackedWeight::Pack({&view, 1}, DType::kBFloat16); }));
  EXPECT_TRUE(GivesWay([] { RopeTables({.head_dim = 128, .num_positions = 8192}); }));
}

}  // namespace
}  // namespace evaserve
