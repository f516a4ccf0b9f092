// The laws of TensorModel, what is translated, and what is refused.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "kernels/serial_worker_pool.h"
#include "models/eva_translation/eva_translation_model.h"
#include "models/eva_translation/testing/random_translation.h"
#include "models/eva_translation/testing/reference_decoder.h"
#include "models/eva_translation/testing/requests.h"
#include "models/eva_translation/translation_text.h"
#include "models/eva_translation/translator.h"
#include "models/testing/refusal.h"
#include "models/testing/status_matchers.h"

namespace evaserve {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsSupersetOf;
using ::testing::Le;
using ::testing::Pair;
using ::testing::SizeIs;
using J = nlohmann::json;
using Texts = std::vector<std::string>;

// Of words of the tiny models' dictionaries.
std::string RandomText(int num_words, uint32_t seed, const char* letter = "e") {
  std::mt19937 generator(seed);
  std::string text;
  for (int i = 0; i < num_words; ++i) {
    absl::StrAppend(&text, i == 0 ? "" : " ", letter, 4 + generator() % 36);
  }
  return text;
}

Texts RandomTexts(int count) {
  Texts texts;
  for (int i = 0; i < count; ++i) texts.push_back(RandomText(1 + i * 7 % 15, i));
  return texts;
}

class EvaTranslationTest : public ::testing::Test {
 protected:
  EvaTranslationTest() { Load(TinyTranslationJson()); }

  void Load(const J& json, const LoadOptions& options = {}) {
    RandomTranslation(json).WriteModel(directory_.path());
    auto model = LoadEvaTranslationModel(directory_.path(), json, options, workers_);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
  }

  Translations Run(const TranslationRequest& request) {
    const TensorModel::Inputs* requests[] = {request.inputs()};
    const auto results = model_->Run(requests);
    EXPECT_TRUE(results.ok()) << results.status();
    return results.ok() ? ReadTranslations(results->front()) : Translations();
  }

  absl::Status ErrorOf(const TranslationRequest& request) {
    return RefusalOf(*model_, *request.inputs());
  }

  const TempDir directory_;
  SerialWorkerPool workers_;
  std::unique_ptr<TensorModel> model_;
};

TEST_F(EvaTranslationTest, SaysWhatItTakesAndGives) {
  const TensorModelInfo& info = model_->info();
  EXPECT_EQ(info.architecture, "eva_translation");
  ASSERT_THAT(info.inputs, SizeIs(4));
  EXPECT_EQ(info.inputs[0].name, "text_input");
  EXPECT_FALSE(info.inputs[0].is_optional);
  for (int i : {1, 2, 3}) EXPECT_TRUE(info.inputs[i].is_optional);
  ASSERT_THAT(info.outputs, SizeIs(2));
  EXPECT_THAT(info.parameters,
              IsSupersetOf({Pair("beam_size", "4"), Pair("length_penalty", "0.6"),
                            Pair("max_source_tokens", "64"), Pair("max_tokens", "31")}));
  int64_t elements = 0;
  for (const auto& [name, tensor] : RandomTranslation(TinyTranslationJson())) {
    elements += static_cast<int64_t>(tensor.values.size());
  }
  EXPECT_EQ(info.num_parameters, elements);
  EXPECT_GT(info.weight_bytes, elements * 4);
}

// What beam search finds with the decoder in plain loops, in float64, of a source's hidden states.
BeamSearch::Finished SearchReference(const ReferenceDecoder& decoder,
                                     const std::vector<float>& encoded, int num_source_tokens) {
  BeamSearch search({.beam_size = 4,
                     .length_penalty = 0.6,
                     .max_length = static_cast<int>(1.5 * num_source_tokens) + 5,
                     .no_repeat_ngram_size = 2});
  while (!search.is_done()) {
    std::vector<float> log_probs;
    for (const BeamSearch::Hypothesis& hypothesis : search.live()) {
      std::vector<int> tokens = {2};
      tokens.insert(tokens.end(), hypothesis.tokens.begin(), hypothesis.tokens.end());
      const auto logits = decoder.Logits(encoded, tokens);
      const std::span<const double> last(logits.end() - 40, logits.end());
      double sum = 0;
      for (const double x : last) sum += std::exp(x);
      for (const double x : last) log_probs.push_back(static_cast<float>(x - std::log(sum)));
    }
    search.Advance(log_probs);
  }
  return search.Best();
}

TEST_F(EvaTranslationTest, IsBeamSearchOverTheReference) {
  const J json = TinyTranslationJson();
  const RandomTranslation tensors(json);
  const ReferenceDecoder reference(json, tensors);
  const auto config = ReadEvaTranslationConfig("config.json", json, {});
  const auto checkpoint = Checkpoint::Open(directory_.path());
  TensorReader reader(*checkpoint, "encoder.");
  auto weights = ReadEvaEncoderWeights(reader, config->encoder);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EvaEncoderNetwork encoder(config->encoder, *std::move(weights), workers_);
  std::set<std::string> different;
  for (const std::string& text : RandomTexts(12)) {
    std::vector<TokenId> source;
    for (const std::string& word : SplitAtSpace(text)) source.push_back(std::stoi(word.substr(1)));
    source.push_back(2);
    const int length = static_cast<int>(source.size());
    std::vector<float> encoded(length * 16);
    ASSERT_TRUE(encoder.Run(source, {&length, 1}, encoded.data()).ok());
    const BeamSearch::Finished best = SearchReference(reference, encoded, length);
    const Translations got = Run(TranslationRequest({text}));
    EXPECT_EQ(got.texts[0], TextOf(best.tokens, "d"));
    EXPECT_NEAR(got.scores[0], best.score, 1e-4);
    different.insert(got.texts[0]);
  }
  EXPECT_GT(different.size(), 8);
}

TEST_F(EvaTranslationTest, ABatchIsItsRowsToTheBit) {
  const Texts texts = RandomTexts(50);  // more than decode together
  for (const J& json : {TinyTranslationJson(), TinySharedTranslationJson()}) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      Load(json, {.dtype = dtype});
      const Translations batch = Run(TranslationRequest(texts));
      ASSERT_THAT(batch.texts, SizeIs(texts.size()));
      for (size_t i = 0; i < texts.size(); ++i) {
        EXPECT_EQ(Run(TranslationRequest({texts[i]})),
                  Translations({batch.texts[i]}, {batch.scores[i]}));
      }
    }
  }
}

TEST_F(EvaTranslationTest, RequestsDoNotInfluenceEachOther) {
  TranslationRequest one({RandomText(5, 1), RandomText(12, 2)}), two({RandomText(9, 3)});
  one.BeamSize(2).LengthPenalty(0);
  two.MaxTokens(3);
  const TensorModel::Inputs* requests[] = {one.inputs(), two.inputs()};
  const auto together = model_->Run(requests);
  ASSERT_TRUE(together.ok()) << together.status();
  EXPECT_EQ(ReadTranslations((*together)[0]), Run(one));
  EXPECT_EQ(ReadTranslations((*together)[1]), Run(two));
}

TEST_F(EvaTranslationTest, MaxTokensCutsAndTheBeamCounts) {
  const Texts texts = RandomTexts(30);
  const auto with = [&](int beam_size, float length_penalty) {
    return Run(TranslationRequest(texts).BeamSize(beam_size).LengthPenalty(length_penalty));
  };
  for (const std::string& text : Run(TranslationRequest(texts).MaxTokens(2)).texts) {
    EXPECT_LE(std::ranges::count(text, ' '), 1);
  }
  EXPECT_NE(with(1, 1).texts, with(8, 1).texts);
  EXPECT_NE(with(8, 0).texts, with(8, 3).texts);
  // What the config says is what a request may say.
  EXPECT_EQ(with(4, 0.6f), Run(TranslationRequest(texts)));
}

TEST_F(EvaTranslationTest, WordsThatNobodyKnowsAreUnknown) {
  EXPECT_EQ(Run(TranslationRequest({"e4 what e5"})), Run(TranslationRequest({"e4 <pad> e5"})));
  EXPECT_EQ(Run(TranslationRequest({"e4\n e5 "})), Run(TranslationRequest({"e4 e5"})));
}

TEST_F(EvaTranslationTest, EndsWhenNobodyWaitsAnyMore) {
  int num_questions = 0;
  model_->set_is_wanted([&] { return ++num_questions < 3; });
  const TranslationRequest request({RandomText(9, 3)});
  const TensorModel::Inputs* requests[] = {request.inputs()};
  EXPECT_TRUE(absl::IsCancelled(model_->Run(requests).status()));
  EXPECT_EQ(num_questions, 3);
  model_->set_is_wanted([] { return true; });
  EXPECT_NE(Run(request).texts[0], "");
}

TEST_F(EvaTranslationTest, CountsTheTokensOfItsHypotheses) {
  const TranslationRequest usual({"e4 e5", "e6"});
  const auto count = [&](const TranslationRequest& request) {
    return model_->CountTokens(*request.inputs()).value_or(-1);
  };
  EXPECT_EQ(count(usual), 3 + 4 + 2 + 4);
  EXPECT_EQ(count(TranslationRequest({"e4 e5"}).BeamSize(7)), 3 + 7);
}

TEST_F(EvaTranslationTest, GivesBackTheMemoryOfAWideSearch) {
  J json = TinyTranslationJson();
  json["decoder"]["max_target_positions"] = 512;
  json["generation"] = {{"max_len_b", 250}, {"min_len", 250}};
  Load(json);
  const TranslationRequest small({"e4"});
  const Translations want = Run(small);
  const StatePool before = model_->state_pool();
  EXPECT_EQ(before.total_pages, kMaxSlots);
  EXPECT_LT(before.free_pages, kMaxSlots);
  Run(TranslationRequest({"e4 e5", "e6"}).BeamSize(64));
  EXPECT_EQ(model_->state_pool().free_pages, kMaxSlots - kSlotsKept);
  EXPECT_EQ(Run(small), want);
}

// One call of the model: others wait for its end.
TEST_F(EvaTranslationTest, RefusesMoreWorkThanARequestMayBe) {
  TranslationRequest wide(Texts(256, "e4"));
  wide.BeamSize(64).MaxTokens(31);
  EXPECT_THAT(ErrorOf(wide), IsError(kInvalid, "text_input: got 256 rows", "262144"));
  const TranslationRequest large(Texts(9, std::string(32000, 'a')));
  EXPECT_THAT(ErrorOf(large), IsError(kInvalid, "text_input: got 9 rows of 288036 bytes"));
}

TEST_F(EvaTranslationTest, RefusesTextThatIsNone) {
  EXPECT_THAT(ErrorOf(TranslationRequest({"e4", " \n"})),
              IsError(kInvalid, "text_input: row 1 has no words"));
  EXPECT_THAT(ErrorOf(TranslationRequest({"e4 \xff"})),
              IsError(kInvalid, "text_input: row 0 is not UTF-8"));
  EXPECT_THAT(ErrorOf(TranslationRequest({std::string(32769, 'a')})),
              IsError(kInvalid, "text_input: row 0 has 32769 bytes, allowed are 32768"));
  const TranslationRequest many(Texts(257, "e4"));
  EXPECT_THAT(ErrorOf(many), IsError(kInvalid, "text_input: got 257 rows", "allowed are 256 rows"));
  EXPECT_THAT(ErrorOf(TranslationRequest({RandomText(64, 1)})),
              IsError(kInvalid, "text_input: row 0 has 65 tokens", "allowed are 1 to 64"));
  EXPECT_TRUE(ErrorOf(TranslationRequest({RandomText(63, 1)})).ok());
}

TEST_F(EvaTranslationTest, RefusesASearchBeyondItsLimits) {
  const auto error = [&](auto change) {
    TranslationRequest request({"e4", "e5"});
    change(request);
    return ErrorOf(request);
  };
  EXPECT_THAT(error([](auto& r) { r.BeamSize(0); }),
              IsError(kInvalid, "beam_size: row 0 is 0, allowed are 1 to 64"));
  EXPECT_THAT(error([](auto& r) { r.BeamSize(65); }), IsError(kInvalid, "beam_size: row 0 is 65"));
  EXPECT_THAT(error([](auto& r) { r.LengthPenalty(NAN); }),
              IsError(kInvalid, "length_penalty: row 0 is nan, allowed are -10 to 10"));
  EXPECT_THAT(error([](auto& r) { r.LengthPenalty(10.5f); }),
              IsError(kInvalid, "length_penalty: row 0 is 10.5"));
  EXPECT_THAT(error([](auto& r) { r.MaxTokens(32); }),
              IsError(kInvalid, "max_tokens: row 0 is 32, allowed are 1 to 31"));
  EXPECT_THAT(error([](auto& r) { r.MaxTokens(0); }), IsError(kInvalid, "max_tokens: row 0 is 0"));
  J json = TinyTranslationJson();
  json["decoder"]["max_target_positions"] = 1024;
  Load(json);
  EXPECT_THAT(error([](auto& r) { r.BeamSize(33).MaxTokens(1023); }),
              IsError(kInvalid, "beam_size: row 0 is 33, with max_tokens 1023; allowed are 32"));
}

class LoadEvaTranslationModelTest : public ::testing::Test {
 protected:
  LoadEvaTranslationModelTest() { tensors_.WriteModel(directory_.path()); }

  absl::Status Load(const LoadOptions& options = {}) {
    return LoadEvaTranslationModel(directory_.path(), json_, options, workers_).status();
  }

  const TempDir directory_;
  J json_ = TinyTranslationJson();
  RandomTranslation tensors_{json_};
  SerialWorkerPool workers_;
};

TEST_F(LoadEvaTranslationModelTest, NamesATensorThatIsMissingOrOfAnotherShape) {
  json_["decoder"]["positions"] = "learned";
  for (const auto& [name, tensor] : RandomTranslation(json_)) {
    RandomTranslation tensors(json_);
    tensors.Add(name, {3, 5}, 1.f);
    tensors.WriteModel(directory_.path());
    EXPECT_THAT(Load(), IsError(kInvalid, name, "shape [3, 5]"));
    tensors.erase(name);
    tensors.WriteModel(directory_.path());
    EXPECT_THAT(Load(), IsError(kInvalid, name, "missing"));
  }
}

TEST_F(LoadEvaTranslationModelTest, NamesATensorThatTheConfigHasNoPlaceFor) {
  const std::pair<const char*, const char*> tensors_and_keys[] = {
      {"encoder.layer_norm.weight", "normalize_before"},
      {"decoder.layer_norm.weight", "normalize_before"},
      {"decoder.embed_positions.weight", "positions"},
      {"encoder.layers.1.self_attn.attn.local_relative_position_bias_table", "use_rpe"},
      {"encoder.layers.1.self_attn.attn.adaptive_mu_k.1.weight", "adaptive_proj"},
      {"decoder.layers.2.fc1.bias", "num_hidden_layers 2"},
      {"encoder.layers.2.fc1.bias", "num_hidden_layers 2"}};
  for (const auto& [name, key] : tensors_and_keys) {
    RandomTranslation tensors = tensors_;
    tensors.Add(name, {16}, 1.f);
    tensors.WriteModel(directory_.path());
    EXPECT_THAT(Load(), IsError(kInvalid, "model.safetensors", name, key));
  }
}

TEST_F(LoadEvaTranslationModelTest, RefusesAUsualSearchThatNoRequestMayHave) {
  json_["decoder"]["max_target_positions"] = 1024;
  json_["generation"] = {{"beam_size", 33}, {"max_len_a", 0}, {"max_len_b", 2000}};
  EXPECT_THAT(Load(), IsError(kInvalid, "config.json: generation: \"beam_size\" is 33",
                              "1 to 32 for translations of up to 1023 tokens"));
  json_["generation"]["beam_size"] = 32;
  EXPECT_TRUE(Load().ok()) << Load();
}

TEST_F(LoadEvaTranslationModelTest, NamesAFileThatIsMissing) {
  json_["bpe"] = "subword_nmt";
  EXPECT_THAT(Load(), IsError(absl::StatusCode::kNotFound, "bpe.codes"));
  json_["bpe"] = "none";
  std::filesystem::remove(directory_.path() / "dict.de.txt");
  EXPECT_THAT(Load(), IsError(absl::StatusCode::kNotFound, "dict.de.txt", "nor dict.txt"));
  std::filesystem::rename(directory_.path() / "dict.en.txt", directory_.path() / "dict.txt");
  EXPECT_TRUE(Load().ok()) << Load();
  WriteFile(directory_.path() / "dict.de.txt", "a 1\n");
  EXPECT_THAT(Load(), IsError(kInvalid, "dict.de.txt", "5 words"));
}

TEST_F(LoadEvaTranslationModelTest, RunsOnTheCpuAlone) {
  EXPECT_THAT(Load({.device = {.kind = Device::Kind::kCuda}}),
              IsError(absl::StatusCode::kUnimplemented, "the CPU only"));
}

// All that text goes through: tokens, byte pairs, numbers, and back.
TEST(TranslationTextTest, GoesThroughMosesAndBytePairs) {
  const TempDir directory;
  WriteFile(directory.path() / "dict.txt", "lo@@ 1\nw 1\nlow 1\n&apos;s 1\n, 1\nDr. 1\n. 1\nx 1\n");
  WriteFile(directory.path() / "bpe.codes",
            "#version: 0.2\nl o\nlo w</w>\n& a\n&a p\n&ap o\n&apo s\n&apos ;\n&apos; s</w>\nD r\n"
            "Dr .</w>\n");
  WriteFile(directory.path() / "nonbreaking_prefix.en", "Dr\n");
  J json = TinySharedTranslationJson();
  json["encoder"]["vocab_size"] = json["decoder"]["vocab_size"] = 12;
  json["tokenization"] = "moses";
  json["bpe"] = "subword_nmt";
  const auto config = ReadEvaTranslationConfig("config.json", json, {});
  ASSERT_TRUE(config.ok()) << config.status();
  const auto text = TranslationText::Load(directory.path(), *config);
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_THAT(text->Encode("Dr. low's, low."), ElementsAre(9, 6, 7, 8, 6, 10, 2));
  EXPECT_THAT(text->Encode("lox q"), ElementsAre(4, 11, 3, 2));
  EXPECT_THAT(text->Encode(""), ElementsAre(2));
  EXPECT_EQ(text->Decode(std::vector<TokenId>{6, 8, 4, 5, 10}), "low, low.");
  EXPECT_EQ(text->Decode(std::vector<TokenId>{3, 10}), "<unk>.");
  EXPECT_EQ(text->Decode(std::vector<TokenId>{0, 4, 0, 5, 2}), "low");
  EXPECT_EQ(text->Decode(std::vector<TokenId>{0}), "");
  EXPECT_EQ(text->Decode({}), "");
}

}  // namespace
}  // namespace evaserve
