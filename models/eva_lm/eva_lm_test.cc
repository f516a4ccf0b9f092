// The laws of Model, on random weights.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "models/eva_lm/network.h"
#include "models/eva_lm/testing/random_lm.h"
#include "models/testing/golden.h"
#include "models/testing/model_laws.h"
#include "models/testing/model_runner.h"
#include "models/testing/status_matchers.h"

namespace evaserve {
namespace {

constexpr int kVocabulary = 60, kSize = 32, kMaxTokens = 96;

std::vector<TokenId> RandomTokens(int count, int seed) {
  std::mt19937 random(seed);
  std::vector<TokenId> tokens(count);
  for (TokenId& token : tokens) token = static_cast<TokenId>(random() % kVocabulary);
  return tokens;
}

struct Layout {
  const char* name;
  nlohmann::json json;
  DType dtype;
};

class EvaLmTest : public testing::TestWithParam<Layout> {
 protected:
  Model& model() { return *loaded_.model; }
  StatePool pool() { return model().state_pool(); }
  absl::StatusOr<std::vector<StepResult>> Step(StepItem item) { return model().Step({&item, 1}); }

  // Advances the sequence by random tokens.
  void Feed(Sequence& sequence, int num_tokens) {
    FeedTokens(model(), sequence, RandomTokens(num_tokens, 3));
  }

  const TempDir dir_;
  LoadedModel loaded_{WrittenModel(), {.dtype = GetParam().dtype, .state_bytes = 1 << 20}};

 private:
  std::filesystem::path WrittenModel() const {
    WriteRandomLm(dir_.path(), GetParam().json);
    return dir_.path();
  }
};

INSTANTIATE_TEST_SUITE_P(
    Layouts, EvaLmTest,
    testing::Values(Layout{"adaptive", TinyLmJson(), DType::kFloat32},
                    Layout{"plain", TinyPlainLmJson(), DType::kFloat32},
                    Layout{"adaptive_bfloat16", TinyLmJson(), DType::kBFloat16},
                    Layout{"plain_bfloat16", TinyPlainLmJson(), DType::kBFloat16}),
    [](const auto& info) { return info.param.name; });

TEST_P(EvaLmTest, AnyCutGivesTheSameBits) {
  const std::vector<TokenId> tokens = RandomTokens(kMaxTokens, 1);
  const Outputs whole = RunTokens(model(), tokens, WholeWindows());
  const CutRule cuts[] = {OneByOne(), [](int64_t done) { return static_cast<int>(1 + done % 5); },
                          [](int64_t) { return 16; }};
  for (const CutRule& cut : cuts) {
    const Outputs pieces = RunTokens(model(), tokens, cut);
    EXPECT_EQ(pieces.hidden, whole.hidden);
    EXPECT_EQ(pieces.logits, whole.logits);
  }
}

TEST_P(EvaLmTest, ABatchGivesTheSameBitsAsItsSequencesAlone) {
  const BatchRow rows[] = {{{}, RandomTokens(1, 1)},
                           {RandomTokens(6, 3), RandomTokens(17, 2)},
                           {RandomTokens(48, 3), RandomTokens(40, 3)},
                           {RandomTokens(19, 3), RandomTokens(5, 4)}};
  ExpectABatchIsItsSequencesAlone(model(), rows);
}

TEST_P(EvaLmTest, DrawsTheSameBesideOthersAsAlone) {
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::vector<Sampler> samplers(20, Sampler({.temperature = 0}));
  std::vector<std::vector<TokenId>> prompts;
  std::vector<StepItem> items;
  for (int i = 0; i < 20; ++i) prompts.push_back(RandomTokens(1 + i, i));
  for (int i = 0; i < 20; ++i) {
    sequences.push_back(model().NewSequence());
    ASSERT_TRUE(model().Reserve(*sequences[i], 1 + i).ok());
    items.push_back({sequences[i].get(), prompts[i], i % 3 == 0 ? nullptr : &samplers[i]});
  }
  const auto results = model().Step(items);
  ASSERT_TRUE(results.ok()) << results.status();
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ((*results)[i].sampled.has_value(), i % 3 != 0);
    if (i % 3 == 0) continue;
    EXPECT_EQ((*results)[i].sampled->chosen.token,
              Generate(model(), prompts[i], 1, {.temperature = 0}).front());
  }
}

TEST_P(EvaLmTest, OutputsAgreeWithEachOther) {
  const std::vector<TokenId> tokens = RandomTokens(50, 1), targets = RandomTokens(50, 2);
  const auto sequence = model().NewSequence();
  ASSERT_TRUE(model().Reserve(*sequence, 50).ok());
  Sampler sampler({.temperature = 0});
  const auto results = Step({.sequence = sequence.get(),
                             .tokens = tokens,
                             .sampler = &sampler,
                             .targets = targets,
                             .sum_hidden = true,
                             .all_hidden = true,
                             .all_logits = true});
  ASSERT_TRUE(results.ok()) << results.status();
  const StepResult& result = results->front();
  for (size_t i = 0; i < tokens.size(); ++i) {
    EXPECT_NEAR(result.target_logprobs[i], result.logits[i * kVocabulary + targets[i]], 1e-5);
  }
  const auto last = result.logits.end() - kVocabulary;
  EXPECT_EQ(result.sampled->chosen.token, std::max_element(last, result.logits.end()) - last);
  EXPECT_NEAR(result.sampled->chosen.logprob, *std::max_element(last, result.logits.end()), 1e-5);
  for (int j = 0; j < kSize; ++j) {
    float sum = 0;
    for (size_t i = 0; i < tokens.size(); ++i) sum += result.hidden[i * kSize + j];
    EXPECT_NEAR(result.hidden_sum[j], sum, 1e-4f);
  }
}

TEST_P(EvaLmTest, ComputesNothingThatNobodyAsksFor) {
  const auto sequence = model().NewSequence();
  ASSERT_TRUE(model().Reserve(*sequence, 4).ok());
  const auto results = Step({.sequence = sequence.get(), .tokens = RandomTokens(4, 1)});
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_FALSE(results->front().sampled);
  EXPECT_TRUE(results->front().target_logprobs.empty());
  EXPECT_TRUE(results->front().logits.empty());
  EXPECT_TRUE(results->front().hidden.empty());
}

TEST_P(EvaLmTest, ASequenceHoldsOnePageWhileItLives) {
  auto sequence = model().NewSequence();
  EXPECT_EQ(model().PagesFor(0), 0);
  EXPECT_EQ(pool().free_pages, pool().total_pages);
  for (int length = 1; length <= kMaxTokens; ++length) {
    Feed(*sequence, 1);
    EXPECT_EQ(pool().total_pages - pool().free_pages, model().PagesFor(length));
  }
  EXPECT_EQ(sequence->length(), kMaxTokens);
  sequence.reset();
  EXPECT_EQ(pool().free_pages, pool().total_pages);
}

TEST_P(EvaLmTest, APageThatHeldAnotherSequenceDoesNotMatter) {
  const std::vector<TokenId> tokens = RandomTokens(70, 1);
  const Outputs first = RunTokens(model(), tokens, WholeWindows());
  std::vector<std::unique_ptr<Sequence>> sequences;
  while (pool().free_pages > 0) Feed(*sequences.emplace_back(model().NewSequence()), kMaxTokens);
  sequences.clear();
  EXPECT_EQ(RunTokens(model(), tokens, WholeWindows()).logits, first.logits);
}

TEST_P(EvaLmTest, ReservesNothingWhenThePoolIsEmpty) {
  std::vector<std::unique_ptr<Sequence>> sequences;
  while (pool().free_pages > 0) Feed(*sequences.emplace_back(model().NewSequence()), 1);
  EXPECT_GT(sequences.size(), 3u);
  const auto sequence = model().NewSequence();
  EXPECT_THAT(model().Reserve(*sequence, 1),
              IsError(absl::StatusCode::kResourceExhausted, "state pool", "0 are free"));
  EXPECT_TRUE(model().Reserve(*sequences.front(), 1).ok());
  sequences.pop_back();
  EXPECT_TRUE(model().Reserve(*sequence, 1).ok());
}

TEST_P(EvaLmTest, RefusesAStepWithoutAReservation) {
  const auto sequence = model().NewSequence();
  EXPECT_THAT(Step({.sequence = sequence.get(), .tokens = RandomTokens(2, 1)}).status(),
              IsError(absl::StatusCode::kFailedPrecondition, "reservation"));
}

TEST_P(EvaLmTest, RefusesASequencePastTheLimit) {
  const auto sequence = model().NewSequence();
  Feed(*sequence, kMaxTokens - 1);
  EXPECT_EQ(model().TokensToBoundary(*sequence), 1);
  EXPECT_THAT(model().Reserve(*sequence, 2), IsError(kInvalid, "is 2", "from 1 to 1"));
  EXPECT_THAT(Step({.sequence = sequence.get(), .tokens = RandomTokens(2, 1)}).status(),
              IsError(kInvalid, "97", "96"));
  Feed(*sequence, 1);
  EXPECT_EQ(model().TokensToBoundary(*sequence), 0);
}

TEST_P(EvaLmTest, RefusesWrongItemsAndLeavesTheStatesUntouched) {
  const auto sequence = model().NewSequence(), other = model().NewSequence();
  ASSERT_TRUE(model().Reserve(*sequence, 24).ok());
  ASSERT_TRUE(model().Reserve(*other, 1).ok());
  const std::vector<TokenId> good = RandomTokens(2, 1);
  const auto error = [&](StepItem item) {
    const StepItem items[] = {{.sequence = other.get(), .tokens = {good.data(), 1}}, item};
    return model().Step(items).status();
  };
  EXPECT_THAT(error({.sequence = sequence.get(), .tokens = std::vector<TokenId>{5, 60}}),
              IsError(kInvalid, "items[1]", "60", "[0, 60)"));
  EXPECT_THAT(error({.sequence = other.get(), .tokens = good}), IsError(kInvalid, "twice"));
  EXPECT_EQ(sequence->length(), 0);
  EXPECT_EQ(other->length(), 0);
}

class EvaLmLoadTest : public testing::Test {
 protected:
  absl::Status LoadError(const LoadOptions& options = {}) {
    return LoadModel(dir_.path(), options, workers_).status();
  }

  TempDir dir_;
  SerialWorkerPool workers_;
};

TEST_F(EvaLmLoadTest, TellsWhatItIs) {
  WriteRandomLm(dir_.path(), TinyLmJson());
  WriteFile(dir_.path() / "generation_config.json", R"({"top_k": 7, "eos_token_id": [2, 9]})");
  const LoadedModel loaded(dir_.path());
  const ModelInfo& info = loaded.model->info();
  EXPECT_EQ(info.architecture, "eva_causal_lm");
  EXPECT_EQ(info.window, 16);
  EXPECT_EQ(info.chunk, 4);
  EXPECT_EQ(info.max_seq_len, kMaxTokens);
  EXPECT_EQ(info.eos_tokens, (std::vector<TokenId>{2, 9}));
  EXPECT_EQ(info.default_sampling.top_k, 7);
  int64_t elements = 0;
  for (const auto& [name, tensor] : RandomLm(TinyLmJson())) elements += std::ssize(tensor.values);
  EXPECT_EQ(info.num_parameters, elements);
  EXPECT_GE(info.weight_bytes, elements * 4);
}

TEST_F(EvaLmLoadTest, WordsAreThoseOfTheDictionary) {
  WriteRandomLm(dir_.path(), TinyLmJson());
  const LoadedModel loaded(dir_.path());
  const Tokenizer& tokenizer = loaded.model->tokenizer();
  EXPECT_EQ(tokenizer.Encode("w4 w59 w60\n", false), (std::vector<TokenId>{2, 4, 59, 3, 2}));
  EXPECT_EQ(tokenizer.Decode(59), " w59");
}

TEST_F(EvaLmLoadTest, NeedsTheDictionary) {
  WriteRandomLm(dir_.path(), TinyLmJson());
  std::filesystem::remove(dir_.path() / "dict.txt");
  EXPECT_THAT(LoadError(), IsError(absl::StatusCode::kNotFound, "dict.txt", "training data"));
  WriteFile(dir_.path() / "dict.txt", LmDictionary(61));
  EXPECT_THAT(LoadError(), IsError(kInvalid, "dict.txt", "61 words", "60 embeddings"));
}

TEST_F(EvaLmLoadTest, NamesATensorThatIsMissingOrOfAnotherShape) {
  const nlohmann::json json = TinyLmJson();
  RandomLm weights(json);
  WriteRandomLm(dir_.path(), json);
  const std::string name = "adaptive_softmax.head.class_proj.weight";
  weights.Add(name, {3, 32}, 1.f);
  weights.Write(dir_.path(), json);
  EXPECT_THAT(LoadError(), IsError(kInvalid, name, "[3, 32]", "[2, 32]"));
  weights.erase(name);
  weights.Write(dir_.path(), json);
  EXPECT_THAT(LoadError(), IsError(kInvalid, name, "missing"));
}

// More positions than there is memory for are not even tried.
TEST_F(EvaLmLoadTest, AnEmptyCheckpointIsRefusedBeforePositionsAreMade) {
  EvaLmConfig config = *ReadEvaLmConfig("config.json", TinyPlainLmJson(), {});
  config.max_positions = 1 << 30;
  config.size = 1 << 20;
  RandomWeights().Write(dir_.path(), TinyPlainLmJson());
  const auto checkpoint = Checkpoint::Open(dir_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  TensorReader reader(*checkpoint);
  EXPECT_THAT(ReadEvaLmWeights(reader, config).status(),
              IsError(kInvalid, "embed_tokens.weight", "missing"));
}

TEST_F(EvaLmLoadTest, RefusesATensorThatTheConfigHasNoPlaceFor) {
  const nlohmann::json adaptive = TinyLmJson(), plain = TinyPlainLmJson();
  const struct {
    const nlohmann::json& json;
    const char* tensor;
    const char* key;
  } misfits[] = {
      {adaptive, "layer_norm.weight", "final_norm"},
      {adaptive, "embed_positions.weight", "positions"},
      {adaptive, "layernorm_embedding.weight", "layernorm_embedding"},
      {adaptive, "layers.2.fc1.weight", "num_hidden_layers"},
      {plain, "output_projection.weight", "share_input_output_embed"},
      {plain, "layers.1.self_attn.rel_pos_bias.relative_attention_bias.weight", "use_t5_rpe"},
      {plain, "layers.1.self_attn.adaptive_mu_q.1.weight", "adaptive_proj"},
      {plain, "layers.1.self_attn.adaptive_mu_k.1.weight", "adaptive_proj"}};
  for (const auto& [json, tensor, key] : misfits) {
    WriteRandomLm(dir_.path(), json);
    RandomLm weights(json);
    weights.Add(tensor, {32}, 1.f);
    weights.Write(dir_.path(), json);
    EXPECT_THAT(LoadError(), IsError(kInvalid, tensor, key));
  }
}

TEST_F(EvaLmLoadTest, APoolTooSmallForASequenceIsRefused) {
  WriteRandomLm(dir_.path(), TinyLmJson());
  EXPECT_THAT(LoadError({.state_bytes = 1000}), IsError(kInvalid, "state_bytes is 1000"));
}

TEST_F(EvaLmLoadTest, LaterWordsDoNotMatter) {
  WriteRandomLm(dir_.path(), TinyPlainLmJson());
  const LoadedModel loaded(dir_.path());
  std::vector<TokenId> tokens = RandomTokens(80, 1);
  const Outputs first = RunTokens(*loaded.model, tokens, WholeWindows());
  for (int i = 50; i < 80; ++i) tokens[i] = (tokens[i] + 1) % kVocabulary;
  const Outputs second = RunTokens(*loaded.model, tokens, WholeWindows());
  const auto end = 50 * kSize;
  EXPECT_TRUE(std::equal(first.hidden.begin(), first.hidden.begin() + end, second.hidden.begin()));
  EXPECT_NE(first.hidden, second.hidden);
}

}  // namespace
}  // namespace evaserve
