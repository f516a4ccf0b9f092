// The decoder against plain loops in float64, in every layout that a config can ask for, and its
// laws: one token at a time is all at once, and nobody else's rows count.

#include "models/eva_translation/decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <numeric>
#include <random>

#include "kernels/serial_worker_pool.h"
#include "models/eva_translation/testing/random_translation.h"
#include "models/eva_translation/testing/reference_decoder.h"
#include "models/testing/golden.h"
#include "models/testing/status_matchers.h"

namespace evaserve {
namespace {

using J = nlohmann::json;
using Tokens = std::vector<TokenId>;
constexpr int kNumSlots = 1000;

std::vector<float> Random(size_t size, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(size);
  for (float& value : values) value = normal(generator);
  return values;
}

Tokens RandomTokens(int count, uint32_t seed) {
  std::mt19937 generator(seed);
  Tokens tokens = {2};
  while (std::ssize(tokens) < count) tokens.push_back(static_cast<int>(generator() % 40));
  return tokens;
}

class DecoderTest : public ::testing::Test {
 protected:
  void Load(const J& json, std::optional<DType> dtype = {}) {
    json_ = json;
    tensors_ = std::make_unique<RandomTranslation>(json_);
    const auto config = ReadEvaTranslationConfig("config.json", json_, dtype);
    ASSERT_TRUE(config.ok()) << config.status();
    config_ = *config;
    const TempDir directory;
    tensors_->Write(directory.path(), json_);
    const auto checkpoint = Checkpoint::Open(directory.path());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    TensorReader encoder(*checkpoint, "encoder."), decoder(*checkpoint, "decoder.");
    auto weights = ReadTranslationDecoderWeights(encoder, decoder, config_);
    ASSERT_TRUE(weights.ok()) << weights.status();
    auto made = TranslationDecoder::Create(config_, *std::move(weights), kNumSlots, workers_);
    ASSERT_TRUE(made.ok()) << made.status();
    decoder_ = *std::move(made);
  }

  // Of sources of these lengths.
  std::vector<float> SetSources(const std::vector<int>& lengths) {
    const int total = std::accumulate(lengths.begin(), lengths.end(), 0);
    std::vector<float> encoded = Random(size_t(total) * config_.encoder.size, 5);
    decoder_->SetSources(encoded.data(), lengths);
    return encoded;
  }

  std::vector<float> Step(const std::vector<DecoderRow>& rows) {
    std::vector<float> logits(rows.size() * config_.decoder.vocab_size);
    const absl::Status status = decoder_->Step(rows, logits.data());
    EXPECT_TRUE(status.ok()) << status;
    return logits;
  }

  // All tokens of one hypothesis at once, its keys and values in slots from `first` on.
  std::vector<float> AllAtOnce(const Tokens& tokens, int source = 0, int first = 0) {
    std::vector<int32_t> slots(tokens.size());
    std::iota(slots.begin(), slots.end(), first);
    std::vector<DecoderRow> rows;
    for (size_t i = 0; i < tokens.size(); ++i) {
      rows.push_back({tokens[i], source, std::span(slots).first(i + 1)});
    }
    return Step(rows);
  }

  SerialWorkerPool workers_;
  J json_;
  std::unique_ptr<RandomTranslation> tensors_;
  EvaTranslationConfig config_;
  std::unique_ptr<TranslationDecoder> decoder_;
};

struct Layout {
  const char* name;
  std::function<void(J& json)> change;
};

class DecoderReferenceTest : public DecoderTest, public ::testing::WithParamInterface<Layout> {};

TEST_P(DecoderReferenceTest, TheDecoderIsThePlainLoops) {
  J json = TinyTranslationJson();
  GetParam().change(json);
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    Load(json, dtype);
    const ReferenceDecoder reference(json_, *tensors_);
    for (const int num_tokens : {1, 2, 17, 32}) {
      SCOPED_TRACE(num_tokens);
      const std::vector<float> encoded = SetSources({num_tokens + 3});
      const Tokens tokens = RandomTokens(num_tokens, num_tokens);
      const auto want = reference.Logits(encoded, tokens);
      const std::vector<float> got = AllAtOnce(tokens);
      EXPECT_LE(MaxError(got, std::vector<float>(want.begin(), want.end())),
                dtype == DType::kFloat32 ? 5e-5 : 0.3);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, DecoderReferenceTest,
    ::testing::Values(
        Layout{"Usual", [](J&) {}},
        Layout{"NormBefore", [](J& j) { j["decoder"]["normalize_before"] = true; }},
        Layout{"Gelu", [](J& j) { j["decoder"]["hidden_act"] = "gelu"; }},
        Layout{"Scale", [](J& j) { j["decoder"]["embed_scale"] = 2; }},
        Layout{"LearnedPositions", [](J& j) { j["decoder"]["positions"] = "learned"; }},
        Layout{"EmbeddingNorm", [](J& j) { j["decoder"]["layernorm_embedding"] = true; }},
        Layout{"TiedOutput", [](J& j) { j["share_decoder_input_output_embed"] = true; }},
        Layout{"Shared", [](J& j) { j = TinySharedTranslationJson(); }}),
    [](const auto& info) { return info.param.name; });

// More positions than there is memory for are not even tried.
TEST_F(DecoderTest, AnEmptyCheckpointIsRefusedBeforePositionsAreMade) {
  EvaTranslationConfig config = *ReadEvaTranslationConfig("config.json", TinyTranslationJson(), {});
  config.decoder.max_tokens = 1 << 30;
  config.decoder.size = 1 << 20;
  const TempDir directory;
  RandomWeights().Write(directory.path(), TinyTranslationJson());
  const auto checkpoint = Checkpoint::Open(directory.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  TensorReader encoder(*checkpoint, "encoder."), decoder(*checkpoint, "decoder.");
  EXPECT_THAT(
      ReadTranslationDecoderWeights(encoder, decoder, config).status(),
      IsError(absl::StatusCode::kInvalidArgument, "decoder.embed_tokens.weight", "missing"));
}

TEST_F(DecoderTest, OneTokenAtATimeIsAllAtOnceToTheBit) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    Load(TinyTranslationJson(), dtype);
    SetSources({7});
    const Tokens tokens = RandomTokens(32, 1);
    std::vector<float> one_by_one;
    std::vector<int32_t> slots;
    for (size_t i = 0; i < tokens.size(); ++i) {
      slots.push_back(static_cast<int32_t>(i * 7 % 32));  // anywhere
      const std::vector<float> logits = Step({{tokens[i], 0, slots}});
      one_by_one.insert(one_by_one.end(), logits.begin(), logits.end());
    }
    EXPECT_EQ(one_by_one, AllAtOnce(tokens));
  }
}

TEST_F(DecoderTest, OtherRowsDoNotCount) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    Load(TinyTranslationJson(), dtype);
    const Tokens tokens[] = {RandomTokens(9, 1), RandomTokens(20, 2), RandomTokens(9, 3)};
    const int sources[] = {1, 0, 1};
    SetSources({5, 12});
    std::vector<float> alone;
    std::vector<DecoderRow> rows;
    std::vector<std::vector<int32_t>> slots(3);
    for (int i = 0; i < 3; ++i) {
      const std::vector<float> logits = AllAtOnce(tokens[i], sources[i], 40 * i);
      alone.insert(alone.end(), logits.begin(), logits.end());
      slots[i].resize(tokens[i].size());
      std::iota(slots[i].begin(), slots[i].end(), 40 * i);
      for (size_t j = 0; j < tokens[i].size(); ++j) {
        rows.push_back({tokens[i][j], sources[i], std::span(slots[i]).first(j + 1)});
      }
    }
    EXPECT_EQ(Step(rows), alone);
  }
}

TEST_F(DecoderTest, HypothesesMayShareTheirBeginning) {
  Load(TinyTranslationJson());
  SetSources({5});
  Tokens first = RandomTokens(6, 1), second = first;
  second.back() = (second.back() + 1) % 40;
  const std::vector<float> want_first = AllAtOnce(first), want_second = AllAtOnce(second);
  Tokens common = first;
  common.pop_back();
  AllAtOnce(common, 0, 10);
  const std::vector<int32_t> slots[] = {{10, 11, 12, 13, 14, 3}, {10, 11, 12, 13, 14, 90}};
  const std::vector<float> got = Step({{first.back(), 0, slots[0]}, {second.back(), 0, slots[1]}});
  for (int i = 0; i < 40; ++i) {
    EXPECT_EQ(got[i], want_first[5 * 40 + i]);
    EXPECT_EQ(got[40 + i], want_second[5 * 40 + i]);
  }
}

TEST_F(DecoderTest, SlotsThatWereGivenBackCanBeUsedAgain) {
  Load(TinyTranslationJson());
  SetSources({5});
  const Tokens tokens = RandomTokens(20, 1);
  const std::vector<float> want = AllAtOnce(tokens, 0, 900);
  EXPECT_EQ(decoder_->slots().total_pages, kNumSlots);
  EXPECT_EQ(decoder_->slots().free_pages, kNumSlots - 920);
  EXPECT_EQ(decoder_->slots().page_bytes, 2 * 2 * 24 * 4) << "of two layers";
  decoder_->GiveBackSlots(100);
  EXPECT_EQ(decoder_->slots().free_pages, kNumSlots - 100);
  EXPECT_EQ(AllAtOnce(tokens, 0, 900), want);
}

TEST_F(DecoderTest, ASlotThatThereIsNotIsRefused) {
  Load(TinyTranslationJson());
  SetSources({5});
  const int32_t slot = kNumSlots;
  std::vector<float> logits(40);
  EXPECT_THAT(decoder_->Step(std::vector<DecoderRow>{{2, 0, {&slot, 1}}}, logits.data()),
              IsError(absl::StatusCode::kInvalidArgument, "slot 1000, allowed are 0 to 999"));
}

}  // namespace
}  // namespace evaserve
