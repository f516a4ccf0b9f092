#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "kernels/serial_worker_pool.h"
#include "models/eva_vit/config.h"
#include "models/eva_vit/eva_vit_model.h"
#include "models/testing/random_weights.h"
#include "models/testing/status_matchers.h"
#include "models/vision/testing/misfit.h"

namespace evaserve {
namespace {

nlohmann::json GoodConfig() {
  return nlohmann::json::parse(R"({
      "model_type": "eva_vit", "input_size": 32, "patch_size": 4, "in_chans": 3, "embed_dim": 32,
      "num_heads": 2, "depth": 1, "mlp_ratio": 4, "num_classes": 3,
      "attn": {"window_size": 4, "num_landmarks": 4, "attn_2d": true, "use_rpe": true}})");
}

absl::StatusOr<EvaVitConfig> Read(const nlohmann::json& json, std::optional<DType> dtype = {}) {
  return ReadEvaVitConfig("dir/config.json", json, dtype);
}

TEST(EvaVitConfigTest, ReadsTheKeysOfThePublishedCode) {
  const auto config = Read(GoodConfig());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->side(), 8);
  EXPECT_EQ(config->mlp_size, 128);
}

struct BadConfig {
  const char* name;
  std::function<void(nlohmann::json& json)> change;
  const char* message;
};

class BadEvaVitConfigTest : public ::testing::TestWithParam<BadConfig> {};

TEST_P(BadEvaVitConfigTest, IsRefusedByFileAndKey) {
  nlohmann::json json = GoodConfig();
  GetParam().change(json);
  EXPECT_THAT(Read(json).status(), IsError(kInvalid, "dir/config.json", GetParam().message));
}

using J = nlohmann::json;
INSTANTIATE_TEST_SUITE_P(
    All, BadEvaVitConfigTest,
    ::testing::Values(
        BadConfig{"Heads", [](J& j) { j["num_heads"] = 3; }, "a multiple of num_heads, 3"},
        BadConfig{"Patch", [](J& j) { j["patch_size"] = 5; }, "a multiple of patch_size, 5"},
        BadConfig{"NoDepth", [](J& j) { j.erase("depth"); }, "\"depth\" is missing"},
        BadConfig{"Activation", [](J& j) { j["hidden_act"] = "relu"; }, "\"hidden_act\""},
        BadConfig{"NoMlp", [](J& j) { j["mlp_ratio"] = 0.01; }, "\"mlp_ratio\" is 0.01"},
        BadConfig{"NoGatedMlp",
                  [](J& j) {
                    j["mlp_ratio"] = 0.05;
                    j["use_glu"] = true;
                  },
                  "\"mlp_ratio\" is 0.05"},
        BadConfig{"HeadDim", [](J& j) { j["num_heads"] = 16; }, "attn: head_dim"},
        BadConfig{"Window", [](J& j) { j["attn"]["window_size"] = 3; }, "attn: "},
        BadConfig{"Biases",
                  [](J& j) {
                    j.update({{"input_size", 512}, {"patch_size", 1}});
                    j["attn"]["window_size"] = 512;
                  },
                  "attn: window_size is 512: the biases of use_rpe for 2 heads in 1 layers would "
                  "be 1.37439e+11 numbers, allowed are 268435456"},
        BadConfig{"Landmarks", [](J& j) { j["attn"]["num_landmarks"] = 65; }, "attn: "}),
    [](const auto& info) { return info.param.name; });

// What GoodConfig() asks for.
RandomWeights GoodWeights() {
  RandomWeights weights;
  weights.Add("patch_embed.proj.weight", {32, 3, 4, 4}, 0.2f);
  weights.Add("patch_embed.proj.bias", {32}, 0.2f);
  weights.Add("pos_embed", {1, 8, 8, 32}, 0.2f);
  for (const char* norm : {"blocks.0.norm1.", "blocks.0.norm2.", "norm_before_pooling."}) {
    weights.AddNorm(norm, 32);
  }
  weights.AddLinear("blocks.0.attn.qkv.", 96, 32);
  weights.AddLinear("blocks.0.attn.proj.", 32, 32);
  for (const char* map : {"blocks.0.attn.adaptive_mu_q.", "blocks.0.attn.adaptive_mu_k."}) {
    weights.AddLinear(std::string(map) + "0.", 16, 16);
    weights.AddNorm(std::string(map) + "1.", 16);
  }
  weights.Add("blocks.0.attn.local_relative_position_bias_table", {31, 2}, 0.2f);
  weights.AddLinear("blocks.0.mlp.fc1.", 128, 32);
  weights.AddLinear("blocks.0.mlp.fc2.", 32, 128);
  weights.AddLinear("head.", 3, 32);
  return weights;
}

class EvaVitMisfitTest : public ::testing::TestWithParam<Misfit> {};

TEST_P(EvaVitMisfitTest, IsRefusedByTensorAndKey) {
  ExpectRefused(GetParam(), GoodConfig(), GoodWeights(), LoadEvaVitModel);
}

INSTANTIATE_TEST_SUITE_P(
    All, EvaVitMisfitTest,
    ::testing::Values(Misfit{"Depth", [](J&) {}, "blocks.1.norm1.weight",
                             "config.json has depth 1"},
                      Misfit{"MapBias", [](J& j) { j["attn"]["use_rpe"] = false; },
                             "blocks.0.attn.local_relative_position_bias_table", "\"use_rpe\""},
                      Misfit{"Norm", [](J& j) { j["attn"]["adaptive_proj"] = "no-ln"; },
                             "blocks.0.attn.adaptive_mu_q.1.weight", "\"adaptive_proj\""},
                      Misfit{"Bias", [](J& j) { j["qkv_bias"] = false; }, "blocks.0.attn.qkv.bias",
                             "\"qkv_bias\""}),
    [](const auto& info) { return info.param.name; });

TEST(LoadEvaVitModelTest, SaysWhatIsMissing) {
  SerialWorkerPool workers;
  TempDir directory;
  EXPECT_THAT(LoadEvaVitModel(directory.path(), GoodConfig(), {}, workers).status(),
              IsError(absl::StatusCode::kNotFound, "model.safetensors"));
}

TEST(LoadEvaVitModelTest, RunsOnTheCpuAlone) {
  SerialWorkerPool workers;
  LoadOptions options;
  options.device.kind = Device::Kind::kCuda;
  EXPECT_THAT(LoadEvaVitModel("dir", GoodConfig(), options, workers).status(),
              IsError(absl::StatusCode::kUnimplemented, "the CPU only"));
}

}  // namespace
}  // namespace evaserve
