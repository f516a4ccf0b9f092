#include "models/eva_lm/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "models/eva_lm/testing/random_lm.h"
#include "models/testing/status_matchers.h"

namespace evaserve {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

absl::StatusOr<EvaLmConfig> Read(const nlohmann::json& json, std::optional<DType> dtype = {}) {
  return ReadEvaLmConfig("dir/config.json", json, dtype);
}

TEST(EvaLmConfigTest, ReadsAnAdaptiveModel) {
  nlohmann::json json = TinyLmJson();
  json["bos_token_id"] = 0;
  json["eos_token_id"] = {2, 5};
  const auto config = Read(json);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->vocab_size, 60);
  EXPECT_EQ(config->size, 32);
  EXPECT_EQ(config->mlp_size, 40);
  EXPECT_EQ(config->max_positions, 96);
  EXPECT_FALSE(config->has_final_norm);
  EXPECT_EQ(config->activation, Activation::kRelu);
  EXPECT_FLOAT_EQ(config->embed_scale, std::sqrt(32.f));
  EXPECT_THAT(config->cutoffs, ElementsAre(20, 40));
  EXPECT_TRUE(config->has_tied_output);
  EXPECT_EQ(config->bos_token, 0);
  EXPECT_THAT(config->eos_tokens, ElementsAre(2, 5));
  EXPECT_EQ(config->attention.window, 16);
  EXPECT_EQ(config->attention.chunk, 4);
  EXPECT_FALSE(config->attention.overlap);
  EXPECT_TRUE(config->attention.has_t5_bias);
  EXPECT_TRUE(config->attention.has_norm);
}

TEST(EvaLmConfigTest, BandsGetNarrower) {
  const auto config = Read(TinyLmJson());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->BandSize(0), 32);
  EXPECT_EQ(config->BandSize(1), 8);
  EXPECT_EQ(config->BandSize(2), 2);
  EXPECT_EQ(config->BandSize(100), 0);
}

TEST(EvaLmConfigTest, ReadsAPlainModel) {
  const auto config = Read(TinyPlainLmJson());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->has_final_norm);
  EXPECT_EQ(config->activation, Activation::kGelu);
  EXPECT_THAT(config->cutoffs, IsEmpty());
  EXPECT_TRUE(config->has_tied_output);
  EXPECT_TRUE(config->attention.overlap);
  EXPECT_FALSE(config->attention.has_t5_bias);
  EXPECT_FALSE(config->attention.has_norm);
}

TEST(EvaLmConfigTest, HasFairseqsDefaults) {
  const auto config = Read(nlohmann::json::parse(R"({
      "vocab_size": 60, "hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 2,
      "num_hidden_layers": 2, "attn": {"window_size": 16, "chunk_size": 4}})"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->padding_idx, 1);
  EXPECT_EQ(config->max_positions, 512);
  EXPECT_TRUE(config->has_final_norm);
  EXPECT_EQ(config->norm_eps, 1e-5f);
  EXPECT_THAT(config->cutoffs, IsEmpty());
  EXPECT_EQ(config->bos_token, 2);
  EXPECT_THAT(config->eos_tokens, ElementsAre(2));
  EXPECT_EQ(config->dtype, DType::kFloat32);
}

TEST(EvaLmConfigTest, TheOptionCountsBeforeTheFile) {
  nlohmann::json json = TinyLmJson();
  json["torch_dtype"] = "float16";
  EXPECT_THAT(Read(json).status(), IsError(kInvalid, "\"torch_dtype\" is \"float16\""));
  EXPECT_EQ(Read(json, DType::kBFloat16)->dtype, DType::kBFloat16);
}

struct BadConfig {
  const char* name;
  std::function<void(nlohmann::json& json)> change;
  const char* message;
};

class BadEvaLmConfigTest : public ::testing::TestWithParam<BadConfig> {};

TEST_P(BadEvaLmConfigTest, IsRefusedByFileKeyAndValue) {
  nlohmann::json json = TinyLmJson();
  GetParam().change(json);
  EXPECT_THAT(Read(json).status(), IsError(kInvalid, "dir/config.json", GetParam().message));
}

using J = nlohmann::json;
INSTANTIATE_TEST_SUITE_P(
    All, BadEvaLmConfigTest,
    ::testing::Values(
        BadConfig{"NoSize", [](J& j) { j.erase("hidden_size"); }, "\"hidden_size\" is missing"},
        BadConfig{"Vocabulary", [](J& j) { j["vocab_size"] = 3; },
                  "\"vocab_size\" is 3; allowed: a whole number from 4"},
        BadConfig{"Heads", [](J& j) { j["num_attention_heads"] = 3; },
                  "\"hidden_size\" is 32; allowed: a multiple of num_attention_heads, 3"},
        BadConfig{"Odd",
                  [](J& j) {
                    j["hidden_size"] = 33;
                    j["num_attention_heads"] = 3;
                  },
                  "\"hidden_size\" is 33; allowed: even"},
        BadConfig{"HeadDim", [](J& j) { j["num_attention_heads"] = 16; }, "attn: head_dim is 2"},
        BadConfig{"Padding", [](J& j) { j["padding_idx"] = 60; }, "\"padding_idx\" is 60"},
        BadConfig{"PostNorm", [](J& j) { j["normalize_before"] = false; },
                  "\"normalize_before\" is false; allowed: true"},
        BadConfig{"Activation", [](J& j) { j["hidden_act"] = "tanh"; }, "\"hidden_act\""},
        BadConfig{"Scale", [](J& j) { j["embed_scale"] = "sqrt(2)"; }, "\"embed_scale\""},
        BadConfig{"Positions", [](J& j) { j["positions"] = "learned"; },
                  "\"positions\" is \"learned\"; allowed: \"sinusoidal\""},
        BadConfig{"PositionsTable",
                  [](J& j) {
                    j.update({{"hidden_size", 1 << 16}, {"num_attention_heads", 512}});
                    j["max_target_positions"] = 1025;
                  },
                  "\"max_target_positions\" is 1025; allowed: at most 1024, since each has "
                  "hidden_size, 65536"},
        BadConfig{"Begin", [](J& j) { j["bos_token_id"] = 60; }, "\"bos_token_id\" is 60"},
        BadConfig{"End", [](J& j) { j["eos_token_id"] = 60; }, "\"eos_token_id\" is 60"},
        BadConfig{"NoCutoff", [](J& j) { j.erase("adaptive_cutoff"); },
                  "\"adaptive_cutoff\" is missing"},
        BadConfig{"Cutoff",
                  [](J& j) {
                    j["adaptive_cutoff"] = {20, 60};
                  },
                  "\"adaptive_cutoff\" is [20,60]; allowed: whole numbers from 1 to 59"},
        BadConfig{"CutoffOrder",
                  [](J& j) {
                    j["adaptive_cutoff"] = {20, 20};
                  },
                  "\"adaptive_cutoff\" is [20,20]; allowed: in ascending order"},
        BadConfig{"Factor", [](J& j) { j["adaptive_factor"] = 6; },
                  "\"adaptive_factor\" is 6; allowed: such that hidden_size, 32"},
        BadConfig{"UntiedWeights", [](J& j) { j["tie_adaptive_weights"] = false; },
                  "\"tie_adaptive_weights\" is false; allowed: true"},
        BadConfig{"UntiedProj", [](J& j) { j["tie_adaptive_proj"] = false; },
                  "\"tie_adaptive_proj\" is false; allowed: true"},
        BadConfig{"AdaptiveOutputAlone", [](J& j) { j["adaptive_input"] = false; },
                  "\"adaptive_cutoff\" is [20,40]; allowed: null"},
        BadConfig{"NoAttention", [](J& j) { j.erase("attn"); }, "\"attn\" is missing"},
        BadConfig{"AttentionList", [](J& j) { j["attn"] = {1}; },
                  "attn is [1]; allowed: an object"},
        BadConfig{"Window", [](J& j) { j["attn"]["window_size"] = 18; },
                  "attn: \"window_size\" is 18; allowed: a multiple of chunk_size, 4"},
        BadConfig{"NoChunk", [](J& j) { j["attn"].erase("chunk_size"); },
                  "attn: \"chunk_size\" is missing"},
        BadConfig{"NumChunks", [](J& j) { j["attn"]["num_chunks"] = 8; },
                  "attn: \"num_chunks\" is 8; allowed: null"},
        BadConfig{"Causal", [](J& j) { j["attn"]["causal"] = false; },
                  "attn: \"causal\" is false; allowed: true"},
        BadConfig{"Biases",
                  [](J& j) {
                    j["attn"].update({{"window_size", 4096}, {"overlap_window", true}});
                    j["num_hidden_layers"] = 9;
                  },
                  "attn: window_size is 4096: the biases of use_t5_rpe for 1 heads in 9 layers "
                  "would be 3.0199e+08 numbers, allowed are 268435456"},
        BadConfig{"Proj", [](J& j) { j["attn"]["adaptive_proj"] = "default"; },
                  "attn: \"adaptive_proj\" is \"default\"; allowed: \"qk\" or \"no-ln\""}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace evaserve
