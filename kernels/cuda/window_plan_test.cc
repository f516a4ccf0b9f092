#include "kernels/cuda/window_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace evaserve {
namespace {

using ::testing::HasSubstr;

TEST(WindowPlanTest, NamesWhatTheKernelsDoNotTake) {
  const Regions regions =
      MakeRegions({.height = 1, .width = 8, .window = 4, .num_landmarks = 4}).value();
  const RegionItem item = {&regions, 0, 0};
  const auto error = [&](int head_dim, float scale) {
    const WindowOptions options{{DType::kBFloat16, head_dim}, 2, scale};
    return std::string(PlanWindows(options, {&item, 1}).status().message());
  };
  EXPECT_EQ(error(32, 1.f), "");
  EXPECT_THAT(error(12, 1.f), HasSubstr("head_dim is 12; allowed: multiples of 8"));
  EXPECT_THAT(error(136, 1.f), HasSubstr("head_dim is 136"));
  EXPECT_THAT(error(32, 0.f), HasSubstr("scale is 0"));

  const CausalEvaShape shape{.num_heads = 2, .head_dim = 32, .window = 16, .chunk = 4};
  const WindowOptions options{{DType::kBFloat16, 32}, 2, 1.f};
  const auto steps = [&](CausalStep step) {
    return std::string(PlanSteps(options, shape, {&step, 1}).status().message());
  };
  EXPECT_EQ(steps({.position = 15, .num_tokens = 1, .max_chunks = 4}), "");
  EXPECT_THAT(steps({.position = 15, .num_tokens = 2, .max_chunks = 4}),
              HasSubstr("steps[0].num_tokens is 2; allowed: 1 to 1"));
  EXPECT_THAT(steps({.position = 15, .num_tokens = 1, .max_chunks = 3}),
              HasSubstr("steps[0].max_chunks is 3; allowed: 4 or more"));
  const std::vector<int> lengths = {3, 0};
  EXPECT_THAT(std::string(PlanCausal(options, shape, lengths).status().message()),
              HasSubstr("lengths[1] is 0"));
}
}  // namespace
}  // namespace evaserve
