#include "models/evabyte/config.h"

#include "gtest/gtest.h"
#include "models/testing/random_model.h"
#include "models/testing/status_matchers.h"

namespace evaserve {
namespace {

// config.json of the published SFT model.
nlohmann::json Published() {
  return nlohmann::json::parse(R"({
    "architectures": ["EvaByteForCausalLM"], "attention_bias": false, "attention_class": "eva",
    "attention_dropout": 0.0, "bos_token_id": 1, "chunk_size": 16, "eos_token_id": 11,
    "fp32_ln": false, "fp32_logits": true, "fp32_skip_add": true, "hidden_act": "silu",
    "hidden_size": 4096, "init_cutoff_factor": null, "init_fn": "v2", "init_std": 0.01275,
    "initializer_range": 0.01275, "intermediate_size": 11008, "lazy_init": true,
    "max_position_embeddings": 32768, "max_seq_length": 32768, "mixedp_attn": true,
    "model_type": "evabyte", "norm_add_unit_offset": true, "num_attention_heads": 32,
    "num_chunks": null, "num_hidden_layers": 32, "num_key_value_heads": 32, "num_pred_heads": 8,
    "pad_token_id": 0, "return_dict": false, "rms_norm_eps": 1e-05, "rope_scaling": null,
    "rope_theta": 100000, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    "use_cache": true, "vocab_size": 320, "window_size": 2048})");
}

absl::StatusOr<EvaByteConfig> Parse(const nlohmann::json& json) {
  return ParseEvaByteConfig(json, "dir");
}

// The error after one key of a good config was changed.
absl::Status ErrorWith(const char* key, const nlohmann::json& value) {
  nlohmann::json json = Published();
  json[key] = value;
  return Parse(json).status();
}

TEST(EvaByteConfigTest, ReadsThePublishedConfig) {
  const auto config = Parse(Published());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->hidden_size, 4096);
  EXPECT_EQ(config->intermediate_size, 11008);
  EXPECT_EQ(config->num_layers, 32);
  EXPECT_EQ(config->head_dim(), 128);
  EXPECT_EQ(config->num_pred_heads, 8);
  EXPECT_EQ(config->window, 2048);
  EXPECT_EQ(config->chunk, 16);
  EXPECT_EQ(config->max_positions, 32768);
  EXPECT_EQ(config->rms_norm_eps, 1e-5f);
  EXPECT_TRUE(config->norm_unit_offset);
  EXPECT_EQ(config->rope_theta, 100000.f);
  EXPECT_EQ(config->rope_scaling, RopeScaling::kNone);
  EXPECT_EQ(config->dtype, DType::kBFloat16);
  EXPECT_EQ(config->eos_tokens, std::vector<TokenId>{11});
}

TEST(EvaByteConfigTest, HasTheDefaultsOfThePublishedClass) {
  const auto config = Parse({{"hidden_size", 64},
                             {"intermediate_size", 128},
                             {"num_hidden_layers", 2},
                             {"num_attention_heads", 2}});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->vocab_size, 320);
  EXPECT_EQ(config->num_pred_heads, 1);
  EXPECT_EQ(config->window, 512);
  EXPECT_EQ(config->chunk, 256);
  EXPECT_EQ(config->max_positions, 2048);
  EXPECT_EQ(config->rms_norm_eps, 1e-6f);
  EXPECT_FALSE(config->norm_unit_offset);
  EXPECT_EQ(config->rope_theta, 1e4f);
  EXPECT_EQ(config->eos_tokens, std::vector<TokenId>{2});
}

TEST(EvaByteConfigTest, ReadsBackWhatTheTestModelsWrite) {
  EvaByteConfig written = TinyConfig();
  written.rope_scaling = RopeScaling::kLinear;
  written.rope_factor = 4.f;
  const auto config = Parse(ConfigJson(written));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(ConfigJson(*config), ConfigJson(written));
}

TEST(EvaByteConfigTest, NamesAMissingSize) {
  for (const char* key :
       {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"}) {
    nlohmann::json json = Published();
    json.erase(key);
    EXPECT_THAT(Parse(json).status(), IsError(kInvalid, "dir/config.json", key, "missing"));
  }
}

TEST(EvaByteConfigTest, RefusesSizesOutOfRange) {
  EXPECT_THAT(ErrorWith("hidden_size", -1), IsError(kInvalid, "\"hidden_size\" is -1"));
  EXPECT_THAT(ErrorWith("hidden_size", "big"), IsError(kInvalid, "hidden_size", "big"));
  EXPECT_THAT(ErrorWith("num_hidden_layers", 0), IsError(kInvalid, "num_hidden_layers"));
  EXPECT_THAT(ErrorWith("vocab_size", 1e6), IsError(kInvalid, "vocab_size"));
  EXPECT_THAT(ErrorWith("num_pred_heads", 0), IsError(kInvalid, "num_pred_heads"));
  EXPECT_THAT(ErrorWith("max_position_embeddings", 1 << 30), IsError(kInvalid, "1 to 16777216"));
  EXPECT_THAT(ErrorWith("max_position_embeddings", (1 << 21) + 1),
              IsError(kInvalid, "max_position_embeddings", "2097153; allowed: at most 2097152",
                      "heads have 128 numbers"));
  EXPECT_THAT(ErrorWith("rms_norm_eps", "x"), IsError(kInvalid, "rms_norm_eps"));
  EXPECT_THAT(ErrorWith("rope_theta", 0), IsError(kInvalid, "rope_theta"));
  EXPECT_THAT(ErrorWith("eos_token_id", 320), IsError(kInvalid, "eos_token_id", "320"));
}

TEST(EvaByteConfigTest, RefusesSizesThatDoNotDivide) {
  EXPECT_THAT(ErrorWith("num_attention_heads", 33), IsError(kInvalid, "hidden_size", "33"));
  EXPECT_THAT(ErrorWith("num_attention_heads", 1024),
              IsError(kInvalid, "config.json", "hidden_size", "head_dim is 4", "multiple of 8"));
  EXPECT_THAT(ErrorWith("num_attention_heads", 4), IsError(kInvalid, "head_dim is 1024"));
  EXPECT_THAT(ErrorWith("chunk_size", 15), IsError(kInvalid, "window_size", "2048", "15"));
}

TEST(EvaByteConfigTest, RefusesOtherFunctions) {
  EXPECT_THAT(ErrorWith("hidden_act", "gelu"), IsError(kInvalid, "hidden_act", "gelu", "silu"));
  EXPECT_THAT(ErrorWith("attention_class", "mha"), IsError(kInvalid, "attention_class", "eva"));
  EXPECT_THAT(ErrorWith("attention_bias", true), IsError(kInvalid, "attention_bias", "false"));
  EXPECT_THAT(ErrorWith("tie_word_embeddings", true), IsError(kInvalid, "tie_word_embeddings"));
  EXPECT_THAT(ErrorWith("num_chunks", 8), IsError(kInvalid, "num_chunks", "8", "null"));
  EXPECT_THAT(ErrorWith("torch_dtype", "int8"), IsError(kInvalid, "torch_dtype", "bfloat16"));
}

TEST(EvaByteConfigTest, ReadsRopeScaling) {
  nlohmann::json json = Published();
  json["rope_scaling"] = {{"type", "dynamic"}, {"factor", 2.0}};
  const auto config = Parse(json);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope_scaling, RopeScaling::kDynamic);
  EXPECT_EQ(config->rope_factor, 2.f);
}

TEST(EvaByteConfigTest, RefusesOtherRopeScaling) {
  EXPECT_THAT(ErrorWith("rope_scaling", "linear"), IsError(kInvalid, "rope_scaling"));
  EXPECT_THAT(ErrorWith("rope_scaling", {{"type", "yarn"}, {"factor", 2.0}}),
              IsError(kInvalid, "rope_scaling", "yarn", "linear"));
  EXPECT_THAT(ErrorWith("rope_scaling", {{"type", "linear"}, {"factor", 1.0}}),
              IsError(kInvalid, "rope_scaling", "factor", "above 1"));
  EXPECT_THAT(ErrorWith("rope_scaling", {{"type", "linear"}}),
              IsError(kInvalid, "rope_scaling", "factor", "missing"));
}

}  // namespace
}  // namespace evaserve
