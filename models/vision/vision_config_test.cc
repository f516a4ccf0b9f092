#include "models/vision/vision_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "models/testing/status_matchers.h"

namespace evaserve {
namespace {

using ::testing::ElementsAre;

nlohmann::json GoodConfig() {
  return nlohmann::json::parse(R"({
      "input_size": 32, "num_classes": 2, "id2label": {"1": "b", "0": "a"},
      "attn": {"window_size": 4, "num_landmarks": 4, "attn_2d": true, "use_rpe": true}})");
}

absl::StatusOr<VisionConfig> Read(const nlohmann::json& json, std::optional<DType> dtype = {}) {
  return ReadVisionConfig("dir/config.json", json, dtype);
}

TEST(VisionConfigTest, ReadsWhatAllHave) {
  const auto config = Read(GoodConfig());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->image_size, 32);
  EXPECT_TRUE(config->has_qkv_bias);
  EXPECT_TRUE(config->attention.has_map_bias);
  EXPECT_EQ(config->dtype, DType::kFloat32);
  EXPECT_THAT(config->labels, ElementsAre("a", "b"));
}

TEST(VisionConfigTest, LabelsMayBeAbsent) {
  nlohmann::json json = GoodConfig();
  json.erase("id2label");
  EXPECT_THAT(Read(json)->labels, ElementsAre());
}

TEST(VisionConfigTest, TheOptionCountsBeforeTheFile) {
  nlohmann::json json = GoodConfig();
  json["torch_dtype"] = "float16";
  EXPECT_THAT(Read(json).status(), IsError(kInvalid, "\"torch_dtype\" is \"float16\""));
  EXPECT_EQ(Read(json, DType::kBFloat16)->dtype, DType::kBFloat16);
  EXPECT_THAT(Read(GoodConfig(), DType::kFloat16).status(), IsError(kInvalid, "torch_dtype"));
}

struct BadConfig {
  const char* name;
  std::function<void(nlohmann::json& json)> change;
  const char* message;
};

class BadVisionConfigTest : public ::testing::TestWithParam<BadConfig> {};

TEST_P(BadVisionConfigTest, IsRefusedByFileAndKey) {
  nlohmann::json json = GoodConfig();
  GetParam().change(json);
  EXPECT_THAT(Read(json).status(), IsError(kInvalid, "dir/config.json", GetParam().message));
}

using J = nlohmann::json;
INSTANTIATE_TEST_SUITE_P(
    All, BadVisionConfigTest,
    ::testing::Values(
        BadConfig{"NoSize", [](J& j) { j.erase("input_size"); }, "\"input_size\" is missing"},
        BadConfig{"Colours", [](J& j) { j["in_chans"] = 1; }, "\"in_chans\" is 1"},
        BadConfig{"NoAttention", [](J& j) { j.erase("attn"); }, "\"attn\" is missing"},
        BadConfig{"AttentionList", [](J& j) { j["attn"] = {1}; }, "attn is [1]"},
        BadConfig{"Sequence", [](J& j) { j["attn"]["attn_2d"] = false; }, "\"attn_2d\" is false"},
        BadConfig{"Proj", [](J& j) { j["attn"]["adaptive_proj"] = "qk"; }, "\"adaptive_proj\""},
        BadConfig{"TwoBiases", [](J& j) { j["attn"]["use_t5_rpe"] = true; }, "\"use_t5_rpe\""},
        BadConfig{"TooFewLabels", [](J& j) { j["id2label"].erase("1"); }, "\"id2label\""},
        BadConfig{"LabelOfNoClass",
                  [](J& j) {
                    j["id2label"] = {{"0", "a"}, {"2", "b"}};
                  },
                  "\"id2label\""},
        BadConfig{"LabelTwice",
                  [](J& j) {
                    j["id2label"] = {{"0", "a"}, {"00", "b"}};
                  },
                  "\"id2label\""},
        BadConfig{"NumberForLabel", [](J& j) { j["id2label"]["1"] = 3; }, "\"id2label\""},
        BadConfig{"ListOfLabels",
                  [](J& j) {
                    j["id2label"] = {"a", "b", "c"};
                  },
                  "\"id2label\""}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace evaserve
