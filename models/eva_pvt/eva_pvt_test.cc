#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "models/eva_pvt/config.h"
#include "models/testing/status_matchers.h"

namespace evaserve {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

nlohmann::json GoodConfig() {
  return nlohmann::json::parse(R"({
      "model_type": "eva_pvt_v2", "input_size": 112, "in_chans": 3, "embed_dims": [16, 32, 48, 64],
      "num_heads": [1, 2, 3, 4], "depths": [1, 2, 1, 1], "mlp_ratios": [4, 4, 2, 2],
      "sr_ratios": [8, 4, 2, 1], "num_classes": 3,
      "attn": {"window_size": 7, "num_landmarks": 49, "attn_2d": true, "use_rpe": true}})");
}

absl::StatusOr<EvaPvtConfig> Read(const nlohmann::json& json) {
  return ReadEvaPvtConfig("dir/config.json", json, {});
}

TEST(EvaPvtConfigTest, EachStageHasHalfTheSide) {
  const auto config = Read(GoodConfig());
  ASSERT_TRUE(config.ok()) << config.status();
  const int sides[] = {28, 14, 7, 4};
  for (int i = 0; i < kNumPvtStages; ++i) {
    EXPECT_EQ(config->stages[i].side, sides[i]);
    EXPECT_EQ(config->stages[i].is_eva, i < 3);
  }
  EXPECT_EQ(config->stages[1].mlp_size, 128);
  EXPECT_EQ(config->feature_size(), 64);
}

struct BadConfig {
  const char* name;
  std::function<void(nlohmann::json& json)> change;
  const char* message;
};

class BadEvaPvtConfigTest : public ::testing::TestWithParam<BadConfig> {};

TEST_P(BadEvaPvtConfigTest, IsRefusedByFileAndKey) {
  nlohmann::json json = GoodConfig();
  GetParam().change(json);
  EXPECT_THAT(Read(json).status(), IsError(kInvalid, "dir/config.json", GetParam().message));
}

using J = nlohmann::json;
INSTANTIATE_TEST_SUITE_P(
    All, BadEvaPvtConfigTest,
    ::testing::Values(BadConfig{"ThreeStages",
                                [](J& j) {
                                  j["depths"] = {1, 2, 1};
                                },
                                "\"depths\" is [1,2,1]"},
                      BadConfig{"NoStages", [](J& j) { j.erase("embed_dims"); }, "\"embed_dims\""},
                      BadConfig{"Heads",
                                [](J& j) {
                                  j["num_heads"] = {3, 2, 3, 4};
                                },
                                "multiples of num_heads"},
                      BadConfig{"Biases",
                                [](J& j) {
                                  j["input_size"] = 2048;
                                  j["attn"].update({{"window_size", 128}, {"num_landmarks", 64}});
                                },
                                "stage 2: attn: window_size is 128: the biases of use_rpe for 2 "
                                "heads in 2 layers"},
                      BadConfig{"Side", [](J& j) { j["input_size"] = 100; }, "stage 1: attn: "}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace evaserve
