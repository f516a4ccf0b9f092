#include "kernels/rope_table.h"

#include <gtest/gtest.h>

#include <cmath>

namespace evaserve {
namespace {

constexpr RopeOptions kPlain = {.head_dim = 8, .theta = 10000.f, .num_positions = 40};

TEST(RopeTablesTest, PositionZeroDoesNotRotate) {
  const RopeTables tables(kPlain);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(tables.table().cos[i], 1.f) << i;
    EXPECT_EQ(tables.table().sin[i], 0.f) << i;
  }
}

TEST(RopeTablesTest, AnglesGrowWithPositionAndShrinkWithDimension) {
  const RopeTables tables(kPlain);
  for (int i = 0; i < 4; ++i) {
    const double angle = 30 * std::pow(10000.0, -i / 4.0);
    EXPECT_NEAR(tables.table().cos[30 * 4 + i], std::cos(angle), 1e-5) << i;
    EXPECT_NEAR(tables.table().sin[30 * 4 + i], std::sin(angle), 1e-5) << i;
  }
}

TEST(RopeTablesTest, LinearScalingDividesThePosition) {
  RopeOptions options = kPlain;
  options.scaling = RopeScaling::kLinear;
  options.factor = 2.f;
  const RopeTables plain(kPlain), scaled(options);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(scaled.table().cos[20 * 4 + i], plain.table().cos[10 * 4 + i]) << i;
  }
}

TEST(RopeTablesTest, DynamicScalingRaisesTheBaseOnlyBeyondTheTrainedLength) {
  RopeOptions options = kPlain;
  options.scaling = RopeScaling::kDynamic;
  options.factor = 2.f;
  options.max_positions = 40;
  EXPECT_EQ(RopeTables(options).inverse_frequencies(), RopeTables(kPlain).inverse_frequencies());

  options.max_positions = 20;  // 40 positions: the base grows by (2 * 40 / 20 - 1)^(8 / 6)
  const double base = 10000 * std::pow(3.0, 8.0 / 6.0);
  const RopeTables grown(options);
  EXPECT_NEAR(grown.inverse_frequencies()[3], std::pow(base, -0.75), 1e-9);
}

}  // namespace
}  // namespace evaserve
