#include "kernels/depthwise_conv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/serial_worker_pool.h"

namespace evaserve {
namespace {

// Sums of ten products of numbers near 1.
constexpr float kTolerance = 1e-5f;

std::vector<float> Random(size_t size, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(size);
  for (float& value : values) value = normal(generator);
  return values;
}

class DepthwiseConvTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!ForceCpuKernels(GetParam())) GTEST_SKIP() << "not on this machine";
  }
};

TEST_P(DepthwiseConvTest, FollowsItsFormula) {
  SerialWorkerPool pool;
  for (const auto& [batch, height, width, channels] :
       std::vector<std::array<int, 4>>{{1, 1, 1, 1}, {2, 3, 5, 17}, {1, 2, 1, 64}, {2, 7, 7, 33}}) {
    const size_t size = size_t(batch) * height * width * channels;
    const std::vector<float> x = Random(size, 1), weight = Random(size_t{9} * channels, 2),
                             bias = Random(channels, 3);
    std::vector<float> expected(size), actual(size + 1, NAN);
    DepthwiseConvParams params{.x = x.data(),
                               .weight = weight.data(),
                               .bias = bias.data(),
                               .y = expected.data(),
                               .batch = batch,
                               .height = height,
                               .width = width,
                               .channels = channels};
    DepthwiseConvReference(params);
    params.y = actual.data();
    DepthwiseConvCpu(params, pool);
    for (size_t i = 0; i < size; ++i) ASSERT_NEAR(actual[i], expected[i], kTolerance) << i;
    EXPECT_TRUE(std::isnan(actual[size]));
  }
}

INSTANTIATE_TEST_SUITE_P(All, DepthwiseConvTest,
                         ::testing::Values("baseline", "avx2", "avx512bf16"));

// With a weight of one in one place the map moves.
TEST(DepthwiseConvReferenceTest, MovesAMap) {
  const std::vector<float> x = {1, 2, 3, 4, 5, 6}, bias = {10};  // 2 rows of 3
  std::vector<float> weight(9), y(6);
  weight[0] = 1;  // above and to the left
  DepthwiseConvReference({.x = x.data(),
                          .weight = weight.data(),
                          .bias = bias.data(),
                          .y = y.data(),
                          .batch = 1,
                          .height = 2,
                          .width = 3,
                          .channels = 1});
  EXPECT_THAT(y, ::testing::ElementsAre(10, 10, 10, 10, 11, 12));
}

}  // namespace
}  // namespace evaserve
