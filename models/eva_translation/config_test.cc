#include "models/eva_translation/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "models/eva_translation/testing/random_translation.h"
#include "models/testing/status_matchers.h"

namespace evaserve {
namespace {

using J = nlohmann::json;

absl::StatusOr<EvaTranslationConfig> Read(const J& json, std::optional<DType> dtype = {}) {
  return ReadEvaTranslationConfig("dir/config.json", json, dtype);
}

TEST(EvaTranslationConfigTest, ReadsItsKeys) {
  J json = TinyTranslationJson();
  json["decoder"].update(
      {{"normalize_before", true}, {"embed_scale", 2}, {"positions", "learned"}});
  json.update({{"share_decoder_input_output_embed", true},
               {"tokenization", "moses"},
               {"split_hyphens", true},
               {"source_lang", "de"}});
  json["generation"].update({{"min_len", 0}, {"no_repeat_ngram_size", 3}, {"unk_penalty", 0.5}});
  const auto config = Read(json);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->encoder.size, 16);
  EXPECT_EQ(config->decoder.size, 24);
  EXPECT_EQ(config->decoder.max_tokens, 32);
  EXPECT_EQ(config->decoder.embed_scale, 2.f);
  EXPECT_TRUE(config->decoder.normalizes_before);
  EXPECT_TRUE(config->decoder.has_learned_positions);
  EXPECT_TRUE(config->ties_output);
  EXPECT_FALSE(config->ties_all_embeddings);
  EXPECT_EQ(config->search.beam_size, 4);
  EXPECT_EQ(config->search.length_penalty, 0.6);
  EXPECT_EQ(config->search.max_len_a, 1.5);
  EXPECT_EQ(config->search.min_len, 0);
  EXPECT_EQ(config->search.no_repeat_ngram_size, 3);
  EXPECT_EQ(config->search.unk_penalty, 0.5);
  EXPECT_EQ(config->text.tokenization, Tokenization::kMoses);
  EXPECT_EQ(config->text.source_lang, "de");
  EXPECT_TRUE(config->text.splits_hyphens);
  EXPECT_FALSE(config->text.has_bpe);
}

TEST(EvaTranslationConfigTest, HasFairseqsDefaults) {
  J json = TinyTranslationJson();
  for (const char* key :
       {"generation", "tokenization", "bpe", "share_decoder_input_output_embed"}) {
    json.erase(key);
  }
  json["decoder"] = {{"vocab_size", 40},
                     {"hidden_size", 16},
                     {"intermediate_size", 8},
                     {"num_attention_heads", 2},
                     {"num_hidden_layers", 1}};
  const auto config = Read(json);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->decoder.embed_scale, 4.f);
  EXPECT_EQ(config->decoder.max_tokens, 1024);
  EXPECT_FALSE(config->decoder.normalizes_before);
  EXPECT_FALSE(config->decoder.has_learned_positions);
  EXPECT_FALSE(config->ties_output);
  EXPECT_EQ(config->search.beam_size, 5);
  EXPECT_EQ(config->search.length_penalty, 1);
  EXPECT_EQ(config->search.max_len_b, 200);
  EXPECT_EQ(config->text.tokenization, Tokenization::kMoses);
  EXPECT_EQ(config->text.source_lang, "en");
  EXPECT_EQ(config->text.target_lang, "de");
  EXPECT_TRUE(config->text.has_bpe);
}

TEST(EvaTranslationConfigTest, OneTypeIsForBothParts) {
  EXPECT_EQ(Read(TinyTranslationJson())->encoder.dtype, DType::kFloat32);
  const auto config = Read(TinyTranslationJson(), DType::kBFloat16);
  EXPECT_EQ(config->dtype, DType::kBFloat16);
  EXPECT_EQ(config->encoder.dtype, DType::kBFloat16);
}

TEST(EvaTranslationConfigTest, SharingAllSharesTheOutput) {
  J json = TinySharedTranslationJson();
  json.erase("share_decoder_input_output_embed");
  EXPECT_TRUE(Read(json)->ties_output);
}

struct BadConfig {
  const char* name;
  std::function<void(J& json)> change;
  const char* message;
};

class BadEvaTranslationConfigTest : public ::testing::TestWithParam<BadConfig> {};

TEST_P(BadEvaTranslationConfigTest, IsRefusedByFileAndKey) {
  J json = TinyTranslationJson();
  GetParam().change(json);
  EXPECT_THAT(Read(json).status(), IsError(kInvalid, "dir/config.json", GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadEvaTranslationConfigTest,
    ::testing::Values(
        BadConfig{"NoEncoder", [](J& j) { j.erase("encoder"); }, "\"encoder\" is missing"},
        BadConfig{"Encoder", [](J& j) { j["encoder"] = 5; }, "\"encoder\" is 5"},
        BadConfig{"EncoderSize", [](J& j) { j["encoder"].erase("hidden_size"); },
                  ": encoder: \"hidden_size\" is missing"},
        BadConfig{"Padding", [](J& j) { j["encoder"]["padding_idx"] = 0; },
                  "encoder: \"padding_idx\" is 0, must be 1"},
        BadConfig{"Head", [](J& j) { j["encoder"]["masked_lm_head"] = true; },
                  "\"masked_lm_head\" is true"},
        BadConfig{"NoDecoder", [](J& j) { j["decoder"] = nullptr; }, "\"decoder\" is missing"},
        BadConfig{"DecoderSize", [](J& j) { j["decoder"].erase("hidden_size"); },
                  ": decoder: \"hidden_size\" is missing"},
        BadConfig{"Heads", [](J& j) { j["decoder"]["num_attention_heads"] = 5; },
                  "a multiple of num_attention_heads, 5"},
        BadConfig{"HeadDim", [](J& j) { j["decoder"]["num_attention_heads"] = 4; },
                  ": decoder: head_dim is 6"},
        BadConfig{"PositionsTable",
                  [](J& j) {
                    j["decoder"].update({{"hidden_size", 1 << 16}, {"num_attention_heads", 512}});
                    j["decoder"]["max_target_positions"] = 1025;
                  },
                  ": decoder: \"max_target_positions\" is 1025; allowed: at most 1024"},
        BadConfig{"Vocabulary", [](J& j) { j["decoder"]["vocab_size"] = 3; },
                  ": decoder: \"vocab_size\" is 3"},
        BadConfig{"Positions", [](J& j) { j["decoder"]["positions"] = "rotary"; },
                  ": decoder: \"positions\" is \"rotary\""},
        BadConfig{"Shared", [](J& j) { j["share_all_embeddings"] = true; },
                  "\"share_all_embeddings\" is true, but embeddings are [40, 16] and [40, 24]"},
        BadConfig{"Beam", [](J& j) { j["generation"]["beam_size"] = 65; },
                  ": generation: \"beam_size\" is 65"},
        BadConfig{"Penalty", [](J& j) { j["generation"]["length_penalty"] = 11; },
                  "\"length_penalty\" is 11"},
        BadConfig{"Length",
                  [](J& j) {
                    j["generation"].update({{"max_len_a", 0}, {"max_len_b", 0}});
                  },
                  "\"max_len_b\""},
        BadConfig{"Generation", [](J& j) { j["generation"] = "greedy"; },
                  "\"generation\" is \"greedy\""},
        BadConfig{"Tokenization", [](J& j) { j["tokenization"] = "spm"; },
                  "\"tokenization\" is \"spm\""},
        BadConfig{"Bpe", [](J& j) { j["bpe"] = "gpt2"; }, "\"bpe\" is \"gpt2\""},
        BadConfig{"Language",
                  [](J& j) {
                    j.update({{"tokenization", "moses"}, {"target_lang", "fr"}});
                  },
                  "\"target_lang\" is \"fr\""},
        BadConfig{"NameOfAFile", [](J& j) { j["source_lang"] = "../en"; },
                  "\"source_lang\" is \"../en\""}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace evaserve
