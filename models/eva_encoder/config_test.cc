#include "models/eva_encoder/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "models/eva_encoder/testing/random_encoder.h"
#include "models/testing/status_matchers.h"

namespace evaserve {
namespace {

absl::StatusOr<EvaEncoderConfig> Read(const nlohmann::json& json, std::optional<DType> dtype = {}) {
  return ReadEvaEncoderConfig("dir/config.json", json, dtype);
}

TEST(EvaEncoderConfigTest, ReadsTheConvertersKeys) {
  const auto config = Read(TinyMaskedLmJson());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->size, 16);
  EXPECT_EQ(config->mlp_size, 24);
  EXPECT_EQ(config->max_tokens, 64);
  EXPECT_EQ(config->activation, Activation::kGelu);
  EXPECT_EQ(config->embed_scale, 1.f);
  EXPECT_TRUE(config->normalizes_before);
  EXPECT_TRUE(config->has_learned_positions);
  EXPECT_TRUE(config->has_embedding_norm);
  EXPECT_TRUE(config->has_masked_lm_head);
}

TEST(EvaEncoderConfigTest, HasTheDefaultsOfATranslationEncoder) {
  nlohmann::json json = TinyEncoderJson();
  for (const char* key : {"padding_idx", "normalize_before", "hidden_act", "layer_norm_eps",
                          "embed_scale", "positions", "max_source_positions"}) {
    json.erase(key);
  }
  const auto config = Read(json);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->padding_idx, 1);
  EXPECT_EQ(config->max_tokens, 1024);
  EXPECT_EQ(config->activation, Activation::kRelu);
  EXPECT_EQ(config->norm_eps, 1e-5f);
  EXPECT_EQ(config->embed_scale, 4.f);
  EXPECT_FALSE(config->normalizes_before);
  EXPECT_FALSE(config->has_learned_positions);
  EXPECT_FALSE(config->has_embedding_norm);
  EXPECT_FALSE(config->has_masked_lm_head);
}

TEST(EvaEncoderConfigTest, ReadsWhatTextNeeds) {
  nlohmann::json json = TinyMaskedLmJson();
  EXPECT_EQ(Read(json)->mask_token, std::nullopt);
  EXPECT_FALSE(Read(json)->has_bpe);
  json.update({{"mask_token_id", 39}, {"bpe", "subword_nmt"}});
  EXPECT_EQ(Read(json)->mask_token, 39);
  EXPECT_TRUE(Read(json)->has_bpe);
  json["bpe"] = "gpt2";
  EXPECT_THAT(Read(json).status(), IsError(kInvalid, "\"bpe\" is \"gpt2\"", "subword_nmt"));
  json["bpe"] = "none";
  for (int token : {-1, 1, 40}) {
    json["mask_token_id"] = token;
    EXPECT_THAT(Read(json).status(), IsError(kInvalid, "\"mask_token_id\" is"));
  }
}

TEST(EvaEncoderConfigTest, TheOptionCountsBeforeTheFile) {
  nlohmann::json json = TinyEncoderJson();
  json["torch_dtype"] = "float16";
  EXPECT_THAT(Read(json).status(), IsError(kInvalid, "\"torch_dtype\" is \"float16\""));
  EXPECT_EQ(Read(json, DType::kBFloat16)->dtype, DType::kBFloat16);
}

// Rows are padded to whole windows, and then there must be a token for each landmark.
TEST(EvaEncoderConfigTest, TheLeastTokensFillTheWindowsThatLandmarksNeed) {
  nlohmann::json json = TinyEncoderJson();
  const std::pair<int, int> num_landmarks_and_tokens[] = {{1, 1}, {4, 1}, {5, 5}, {8, 5}, {9, 9}};
  for (const auto& [num_landmarks, num_tokens] : num_landmarks_and_tokens) {
    json["attn"]["num_landmarks"] = num_landmarks;
    const auto config = Read(json);
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->min_tokens(), num_tokens);
    EXPECT_TRUE(Validate(config->RegionsOf(num_tokens)).ok());
    EXPECT_FALSE(Validate(config->RegionsOf(num_tokens - 1)).ok());
  }
}

struct BadConfig {
  const char* name;
  std::function<void(nlohmann::json& json)> change;
  const char* message;
};

class BadEvaEncoderConfigTest : public ::testing::TestWithParam<BadConfig> {};

TEST_P(BadEvaEncoderConfigTest, IsRefusedByFileAndKey) {
  nlohmann::json json = TinyEncoderJson();
  GetParam().change(json);
  EXPECT_THAT(Read(json).status(), IsError(kInvalid, "dir/config.json", GetParam().message));
}

using J = nlohmann::json;
INSTANTIATE_TEST_SUITE_P(
    All, BadEvaEncoderConfigTest,
    ::testing::Values(
        BadConfig{"NoSize", [](J& j) { j.erase("hidden_size"); }, "\"hidden_size\" is missing"},
        BadConfig{"NoVocabulary", [](J& j) { j.erase("vocab_size"); }, "\"vocab_size\" is missing"},
        BadConfig{"Heads", [](J& j) { j["num_attention_heads"] = 3; },
                  "a multiple of num_attention_heads, 3"},
        BadConfig{"HeadDim", [](J& j) { j["num_attention_heads"] = 8; }, "attn: head_dim"},
        BadConfig{"Padding", [](J& j) { j["padding_idx"] = 40; }, "\"padding_idx\" is 40"},
        BadConfig{"Activation", [](J& j) { j["hidden_act"] = "tanh"; }, "\"hidden_act\""},
        BadConfig{"Scale", [](J& j) { j["embed_scale"] = "sqrt(2)"; }, "\"embed_scale\""},
        BadConfig{"ScaleOfZero", [](J& j) { j["embed_scale"] = 0; }, "\"embed_scale\" is 0"},
        BadConfig{"Positions", [](J& j) { j["positions"] = "rotary"; }, "\"positions\""},
        BadConfig{"PositionsTable",
                  [](J& j) {
                    j.update({{"hidden_size", 1 << 16}, {"num_attention_heads", 512}});
                    j["max_source_positions"] = 1025;
                  },
                  "\"max_source_positions\" is 1025; allowed: at most 1024, since each has "
                  "hidden_size, 65536"},
        BadConfig{"Head", [](J& j) { j["masked_lm_head"] = "yes"; }, "\"masked_lm_head\""},
        BadConfig{"EmbeddingNorm", [](J& j) { j["layernorm_embedding"] = 1; },
                  "\"layernorm_embedding\""},
        BadConfig{"NoAttention", [](J& j) { j.erase("attn"); }, "\"attn\" is missing"},
        BadConfig{"Map", [](J& j) { j["attn"]["attn_2d"] = true; }, "attn: attn_2d is true"},
        BadConfig{"Proj", [](J& j) { j["attn"]["adaptive_proj"] = "qk"; }, "\"adaptive_proj\""},
        BadConfig{"Biases",
                  [](J& j) {
                    j["attn"]["window_size"] = 4096;
                    j["num_hidden_layers"] = 5;
                  },
                  "attn: window_size is 4096: the biases of use_t5_rpe for 2 heads in 5 layers "
                  "would be 3.35544e+08 numbers, allowed are 268435456"},
        BadConfig{"Landmarks", [](J& j) { j["attn"]["num_landmarks"] = 65; },
                  "attn: num_landmarks is 65, must be at most 64"}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace evaserve
