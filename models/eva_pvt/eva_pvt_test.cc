#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "kernels/serial_worker_pool.h"
#include "models/eva_pvt/config.h"
#include "models/eva_pvt/eva_pvt_model.h"
#include "models/testing/random_weights.h"
#include "models/testing/status_matchers.h"
#include "models/vision/testing/misfit.h"

namespace evaserve {
namespace {

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

void AddLayer(const std::string& prefix, const EvaPvtStageConfig& stage, RandomWeights& weights) {
  const std::string attention = prefix + "attn.attn_fn.";
  const int head_dim = stage.size / stage.num_heads;
  for (const char* norm : {"norm1.", "norm2."}) weights.AddNorm(prefix + norm, stage.size);
  weights.AddLinear(attention + "qkv.", 3 * stage.size, stage.size);
  weights.AddLinear(attention + "proj.", stage.size, stage.size);
  for (const std::string map : {"adaptive_mu_q.", "adaptive_mu_k."}) {
    if (!stage.is_eva) break;
    weights.AddLinear(attention + map + "0.", head_dim, head_dim);
    weights.AddNorm(attention + map + "1.", head_dim);
  }
  if (stage.is_eva) {
    weights.Add(attention + "local_relative_position_bias_table", {97, stage.num_heads}, 0.2f);
  }
  weights.AddLinear(prefix + "mlp.fc1.", stage.mlp_size, stage.size);
  weights.AddLinear(prefix + "mlp.fc2.", stage.size, stage.mlp_size);
  weights.Add(prefix + "mlp.dwconv.dwconv.weight", {stage.mlp_size, 1, 3, 3}, 0.2f);
  weights.Add(prefix + "mlp.dwconv.dwconv.bias", {stage.mlp_size}, 0.2f);
}

// What GoodConfig() asks for.
RandomWeights GoodWeights() {
  RandomWeights weights;
  const auto config = Read(GoodConfig());
  int channels = 3;
  for (int i = 0; i < kNumPvtStages; ++i) {
    const EvaPvtStageConfig& stage = config->stages[i];
    const std::string number = std::to_string(i + 1);
    const std::string patches = "patch_embed" + number + ".";
    weights.Add(patches + "proj.weight", {stage.size, channels, stage.kernel, stage.kernel}, 0.2f);
    weights.Add(patches + "proj.bias", {stage.size}, 0.2f);
    weights.AddNorm(patches + "norm.", stage.size);
    for (int j = 0; j < stage.num_layers; ++j) {
      AddLayer("block" + number + "." + std::to_string(j) + ".", stage, weights);
    }
    weights.AddNorm("norm" + number + ".", stage.size);
    channels = stage.size;
  }
  weights.AddLinear("head.", 3, channels);
  return weights;
}

class EvaPvtMisfitTest : public ::testing::TestWithParam<Misfit> {};

TEST_P(EvaPvtMisfitTest, IsRefusedByTensorAndKey) {
  ExpectRefused(GetParam(), GoodConfig(), GoodWeights(), LoadEvaPvtModel);
}

INSTANTIATE_TEST_SUITE_P(
    All, EvaPvtMisfitTest,
    ::testing::Values(
        Misfit{"Depth", [](J&) {}, "block2.2.norm1.weight", "config.json has depths of stage 2 2"},
        Misfit{"DepthOfTheLast", [](J&) {}, "block4.1.norm1.weight",
               "config.json has depths of stage 4 1"},
        Misfit{"Softmax",
               [](J& j) {
                 j["sr_ratios"] = {8, 4, 1, 1};
               },
               "block3.0.attn.attn_fn.adaptive_mu_k.0.weight", "\"sr_ratios\""},
        Misfit{"MapBias", [](J& j) { j["attn"]["use_rpe"] = false; },
               "block1.0.attn.attn_fn.local_relative_position_bias_table", "\"use_rpe\""},
        Misfit{"Norm", [](J& j) { j["attn"]["adaptive_proj"] = "no-ln"; },
               "block1.0.attn.attn_fn.adaptive_mu_q.1.weight", "\"adaptive_proj\""},
        Misfit{"Bias", [](J& j) { j["qkv_bias"] = false; }, "block1.0.attn.attn_fn.qkv.bias",
               "\"qkv_bias\""}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace evaserve
