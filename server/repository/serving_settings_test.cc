#include "server/repository/serving_settings.h"

#include <gtest/gtest.h>

#include <chrono>

#include "models/testing/status_matchers.h"

namespace evaserve {
namespace {

absl::StatusOr<ServingSettings> Parse(const char* text) {
  return ParseServingSettings(nlohmann::json::parse(text), "serving.json", {});
}

TEST(ServingSettingsTest, ReadsEveryKey) {
  const auto settings = Parse(R"({
    "device": "cuda:1", "dtype": "bfloat16", "threads": 3, "state_memory_mb": 5,
    "warmup_tokens": 6, "max_batch_tokens": 7, "max_batch_size": 13, "max_queue_delay_ms": 2.5, "max_running": 8, "max_waiting": 9,
    "max_waiting_tokens": 10, "max_waiting_mb": 14, "max_prompt_tokens": 11, "max_new_tokens": 12,
    "ragged": {"inputs": ["x"], "outputs": ["y", "z"]}, "max_queue_seconds": 1.5, "max_request_seconds": 60, "max_piece_wait_seconds": 7, "version_policy": {"all": {}}})");

  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ(settings->load.device.index, 1);
  EXPECT_EQ(settings->load.dtype, DType::kBFloat16);
  EXPECT_EQ(settings->num_threads, 3);
  EXPECT_EQ(settings->load.state_bytes, 5 << 20);
  EXPECT_EQ(settings->warmup_tokens, 6);
  EXPECT_EQ(settings->engine.max_batch_tokens, 7);
  EXPECT_EQ(settings->engine.max_batch_size, 13);
  EXPECT_EQ(settings->engine.max_queue_delay, std::chrono::microseconds(2500));
  EXPECT_EQ(settings->load.packages.ragged.inputs, std::vector<std::string>{"x"});
  EXPECT_EQ(settings->load.packages.ragged.outputs, (std::vector<std::string>{"y", "z"}));
  EXPECT_EQ(settings->engine.max_running, 8);
  EXPECT_EQ(settings->engine.waiting.max_waiting, 9);
  EXPECT_EQ(settings->engine.waiting.max_waiting_tokens, 10);
  EXPECT_EQ(settings->engine.waiting.max_waiting_bytes, 14 << 20);
  EXPECT_EQ(settings->engine.max_prompt_tokens, 11);
  EXPECT_EQ(settings->engine.max_new_tokens, 12);
  EXPECT_EQ(settings->engine.max_queue_time, std::chrono::milliseconds(1500));
  EXPECT_EQ(settings->engine.max_request_time, std::chrono::seconds(60));
  EXPECT_EQ(settings->engine.max_piece_wait, std::chrono::seconds(7));
}

TEST(ServingSettingsTest, ATimeIsNotRoundedToNoLimit) {
  const auto settings = Parse(R"({"max_queue_seconds": 0.0001, "max_request_seconds": 0})");
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ(settings->engine.max_queue_time, std::chrono::milliseconds(1));
  EXPECT_EQ(settings->engine.max_request_time, std::chrono::milliseconds(0));
}

TEST(ServingSettingsTest, KeepsWhatIsNotSaid) {
  ServingSettings defaults;
  defaults.engine.max_running = 77;
  const auto settings =
      ParseServingSettings(nlohmann::json::parse(R"({"threads": 2})"), "serving.json", defaults);
  EXPECT_EQ(settings->engine.max_running, 77);
  EXPECT_EQ(settings->num_threads, 2);
}

TEST(ServingSettingsTest, NamesWhatIsWrong) {
  EXPECT_THAT(Parse(R"({"max_runing": 1})").status(),
              IsError(kInvalid, "serving.json", "max_runing", "max_running"));
  EXPECT_THAT(Parse(R"({"max_running": 0})").status(), IsError(kInvalid, "max_running", "0", "1"));
  EXPECT_THAT(Parse(R"({"dtype": "int4"})").status(), IsError(kInvalid, "int4", "bfloat16"));
  EXPECT_THAT(Parse(R"({"device": "tpu"})").status(), IsError(kInvalid, "tpu", "cuda:N"));
  EXPECT_THAT(Parse(R"({"max_queue_seconds": -1})").status(), IsError(kInvalid, "max_queue"));
}

TEST(VersionPolicyTest, ReadsTheThreeKinds) {
  const auto parse = [](const char* text) {
    return ParseVersionPolicy(nlohmann::json::parse(text), "serving.json");
  };
  EXPECT_EQ(parse("{}")->num_latest, 1);
  EXPECT_EQ(parse(R"({"version_policy": {"latest": {"num_versions": 2}}})")->num_latest, 2);
  EXPECT_EQ(parse(R"({"version_policy": {"all": {}}})")->num_latest, 0);
  EXPECT_EQ(parse(R"({"version_policy": {"specific": {"versions": [4, 2]}}})")->specific,
            (std::vector<int64_t>{4, 2}));
  for (const char* wrong : {R"({"version_policy": "all"})", R"({"version_policy": {"newest": {}}})",
                            R"({"version_policy": {"latest": {"num_versions": 0}}})",
                            R"({"version_policy": {"specific": {"versions": []}}})"}) {
    EXPECT_THAT(parse(wrong).status(), IsError(kInvalid, "serving.json", "version")) << wrong;
  }
}

TEST(ServingSettingsTest, RaggedNamesTensors) {
  for (const char* bad : {R"({"ragged": true})", R"({"ragged": {"inputs": []}})",
                          R"({"ragged": {"outputs": ["y"]}})", R"({"ragged": {"inputs": [1]}})",
                          R"({"ragged": {"inputs": ["x"], "lengths": ["l"], "outputs": ["y"]}})"}) {
    EXPECT_THAT(Parse(bad).status(), IsError(kInvalid, "serving.json", "\"ragged\"")) << bad;
  }
}

}  // namespace
}  // namespace evaserve
