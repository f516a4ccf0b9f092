// The laws of Model, on random weights.

#include "models/evabyte/evabyte_model.h"

#include <cmath>
#include <limits>
#include <random>

#include "gtest/gtest.h"
#include "models/testing/model_laws.h"
#include "models/testing/model_runner.h"
#include "models/testing/random_model.h"
#include "models/testing/status_matchers.h"
#include "models/testing/temp_dir.h"

namespace evaserve {
namespace {

// Two orders of float32 sums over a few hundred terms, through every layer.
constexpr float kCutTolerance = 2e-5f;

std::vector<TokenId> RandomTokens(int count, int seed) {
  std::mt19937 random(seed);
  std::vector<TokenId> tokens(count);
  for (TokenId& token : tokens) token = static_cast<TokenId>(random() % 320);
  return tokens;
}

float MaxDifference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return std::numeric_limits<float>::infinity();
  float max = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const float difference = std::abs(a[i] - b[i]);
    if (!(difference <= max)) max = difference;
  }
  return max;
}

class EvaByteModelTest : public testing::TestWithParam<DType> {
 protected:
  Model& model() { return *loaded_.model; }

  StatePool pool() { return model().state_pool(); }

  absl::StatusOr<std::vector<StepResult>> Step(StepItem item) { return model().Step({&item, 1}); }

  // Advances the sequence by random tokens.
  void Feed(Sequence& sequence, int num_tokens) {
    FeedTokens(model(), sequence, RandomTokens(num_tokens, 3));
  }

  const TempDir dir_;
  // Room for 30 pages; a window takes one, and so do the summaries of ten windows.
  LoadedModel loaded_{
      WrittenModel(),
      {.dtype = GetParam(), .state_bytes = 30 * 2 * PageLayout{GetParam(), 2, 24}.page_bytes()}};

 private:
  std::filesystem::path WrittenModel() const {
    WriteRandomModel(dir_.path(), TinyConfig());
    return dir_.path();
  }
};

INSTANTIATE_TEST_SUITE_P(Types, EvaByteModelTest,
                         testing::Values(DType::kFloat32, DType::kBFloat16),
                         [](const auto& info) { return std::string(Name(info.param)); });

TEST_P(EvaByteModelTest, AnyCutGivesTheSame) {
  const std::vector<TokenId> tokens = RandomTokens(100, 1);
  const Outputs whole = RunTokens(model(), tokens, WholeWindows());
  const CutRule cuts[] = {OneByOne(), [](int64_t done) { return static_cast<int>(1 + done % 5); }};
  for (const CutRule& cut : cuts) {
    const Outputs pieces = RunTokens(model(), tokens, cut);
    EXPECT_LE(MaxDifference(pieces.hidden, whole.hidden), kCutTolerance);
    EXPECT_LE(MaxDifference(pieces.logits, whole.logits), kCutTolerance);
  }
}

TEST_P(EvaByteModelTest, ABatchGivesTheSameBitsAsItsSequencesAlone) {
  const BatchRow rows[] = {{{}, RandomTokens(1, 1)},
                           {RandomTokens(6, 3), RandomTokens(17, 2)},
                           {RandomTokens(48, 3), RandomTokens(24, 3)},
                           {RandomTokens(19, 3), RandomTokens(5, 4)}};
  ExpectABatchIsItsSequencesAlone(model(), rows);
}

TEST_P(EvaByteModelTest, WhichPagesHoldASequenceDoesNotMatter) {
  const std::vector<TokenId> tokens = RandomTokens(100, 1);
  const Outputs first = RunTokens(model(), tokens, WholeWindows());
  // Shuffle the free pages, and fill them with another sequence's state.
  std::vector<std::unique_ptr<Sequence>> sequences;
  for (int i = 0; i < 20; ++i) Feed(*sequences.emplace_back(model().NewSequence()), 20);
  std::shuffle(sequences.begin(), sequences.end(), std::mt19937(5));
  sequences.clear();
  const Outputs second = RunTokens(model(), tokens, WholeWindows());
  EXPECT_EQ(first.hidden, second.hidden);
  EXPECT_EQ(first.logits, second.logits);
}

TEST_P(EvaByteModelTest, OutputsAgreeWithEachOther) {
  const std::vector<TokenId> tokens = RandomTokens(10, 1), targets = RandomTokens(10, 2);
  const auto sequence = model().NewSequence();
  ASSERT_TRUE(model().Reserve(*sequence, 10).ok());
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
  const size_t vocab = 320, per_token = 3 * vocab, hidden = 48;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const float* logits = &result.logits[i * per_token];
    double total = 0;
    for (size_t j = 0; j < vocab; ++j) total += std::exp(double{logits[j]});
    EXPECT_NEAR(result.target_logprobs[i], logits[targets[i]] - std::log(total), 1e-5);
  }
  const float* last = &result.logits[9 * per_token];
  EXPECT_EQ(result.sampled->chosen.token, std::max_element(last, last + vocab) - last);
  for (size_t j = 0; j < hidden; ++j) {
    float sum = 0;
    for (size_t i = 0; i < tokens.size(); ++i) sum += result.hidden[i * hidden + j];
    EXPECT_NEAR(result.hidden_sum[j], sum, 1e-5f);
  }
}

TEST_P(EvaByteModelTest, ComputesNothingThatNobodyAsksFor) {
  const auto sequence = model().NewSequence();
  ASSERT_TRUE(model().Reserve(*sequence, 4).ok());
  const auto results = Step({.sequence = sequence.get(), .tokens = RandomTokens(4, 1)});
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_FALSE(results->front().sampled);
  EXPECT_TRUE(results->front().logits.empty());
  EXPECT_TRUE(results->front().hidden.empty());
}

TEST_P(EvaByteModelTest, HoldsAsManyPagesAsItSays) {
  const auto sequence = model().NewSequence();
  int64_t most = 0;
  for (int64_t length = 1; length <= 256; ++length) {
    ASSERT_TRUE(model().Reserve(*sequence, 1).ok());
    ASSERT_TRUE(Step({.sequence = sequence.get(), .tokens = RandomTokens(1, 1)}).ok());
    most = std::max<int64_t>(most, pool().total_pages - pool().free_pages);
    EXPECT_EQ(model().PagesFor(length), most) << "after " << length << " tokens";
  }
  EXPECT_EQ(sequence->length(), 256);
}

TEST_P(EvaByteModelTest, ASequenceFreesItsPages) {
  auto sequence = model().NewSequence();
  Feed(*sequence, 6 * 24);
  EXPECT_LT(pool().free_pages, pool().total_pages);
  sequence.reset();
  EXPECT_EQ(pool().free_pages, pool().total_pages);
}

TEST_P(EvaByteModelTest, ReservesNothingWhenThePoolIsEmpty) {
  std::vector<std::unique_ptr<Sequence>> sequences;
  while (pool().free_pages > 1) Feed(*sequences.emplace_back(model().NewSequence()), 1);
  // A full window needs a page for itself and one for its summaries.
  const auto sequence = model().NewSequence();
  EXPECT_THAT(model().Reserve(*sequence, 24),
              IsError(absl::StatusCode::kResourceExhausted, "2 pages", "1 are free"));
  EXPECT_EQ(pool().free_pages, 1);
  EXPECT_TRUE(model().Reserve(*sequence, 23).ok());
}

TEST_P(EvaByteModelTest, RefusesAReservationBeyondTheWindow) {
  const auto sequence = model().NewSequence();
  EXPECT_THAT(model().Reserve(*sequence, 25), IsError(kInvalid, "25", "from 1 to 24"));
  EXPECT_THAT(model().Reserve(*sequence, 0), IsError(kInvalid, "num_tokens"));
  Feed(*sequence, 20);
  EXPECT_EQ(model().TokensToBoundary(*sequence), 4);
  EXPECT_THAT(model().Reserve(*sequence, 5), IsError(kInvalid, "from 1 to 4"));
}

TEST_P(EvaByteModelTest, RefusesWrongItemsAndNamesThem) {
  const auto sequence = model().NewSequence(), other = model().NewSequence();
  ASSERT_TRUE(model().Reserve(*sequence, 24).ok());
  ASSERT_TRUE(model().Reserve(*other, 1).ok());
  const std::vector<TokenId> good = RandomTokens(2, 1);
  const auto error = [&](StepItem item) {
    const StepItem items[] = {{.sequence = other.get(), .tokens = {good.data(), 1}}, item};
    return model().Step(items).status();
  };
  EXPECT_THAT(error({.sequence = sequence.get(), .tokens = std::vector<TokenId>{5, 320}}),
              IsError(kInvalid, "items[1]", "320", "[0, 320)"));
  EXPECT_THAT(error({.sequence = sequence.get(), .tokens = std::vector<TokenId>{-1}}),
              IsError(kInvalid, "items[1]", "-1"));
  EXPECT_THAT(error({.sequence = sequence.get()}), IsError(kInvalid, "items[1]", "no tokens"));
  EXPECT_THAT(error({.tokens = good}), IsError(kInvalid, "items[1]", "no sequence"));
  EXPECT_THAT(error({.sequence = other.get(), .tokens = good}), IsError(kInvalid, "twice"));
  EXPECT_THAT(error({.sequence = sequence.get(), .tokens = RandomTokens(25, 1)}),
              IsError(kInvalid, "items[1]", "25", "24"));
  EXPECT_THAT(error({.sequence = sequence.get(), .tokens = good, .targets = RandomTokens(1, 1)}),
              IsError(kInvalid, "items[1]", "targets"));
  EXPECT_THAT(
      error({.sequence = sequence.get(), .tokens = good, .targets = std::vector<TokenId>{1, 999}}),
      IsError(kInvalid, "items[1]", "targets", "999"));
  EXPECT_EQ(sequence->length(), 0);
  EXPECT_EQ(other->length(), 0);
}

TEST_P(EvaByteModelTest, RefusesAStepWithoutAReservation) {
  const auto sequence = model().NewSequence();
  EXPECT_THAT(Step({.sequence = sequence.get(), .tokens = RandomTokens(2, 1)}).status(),
              IsError(absl::StatusCode::kFailedPrecondition, "reservation"));
}

TEST_P(EvaByteModelTest, RefusesASequencePastTheLimit) {
  const auto sequence = model().NewSequence();
  Feed(*sequence, 256);
  ASSERT_TRUE(model().Reserve(*sequence, 1).ok());
  EXPECT_THAT(Step({.sequence = sequence.get(), .tokens = RandomTokens(1, 1)}).status(),
              IsError(kInvalid, "257", "256"));
  EXPECT_EQ(sequence->length(), 256);
}

TEST_P(EvaByteModelTest, AnErrorLeavesTheStateUntouched) {
  const std::vector<TokenId> tokens = RandomTokens(30, 1);
  const Outputs expected = RunTokens(model(), tokens, OneByOne());
  const auto sequence = model().NewSequence();
  std::vector<float> hidden;
  for (size_t i = 0; i < tokens.size(); ++i) {
    ASSERT_TRUE(model().Reserve(*sequence, 1).ok());
    const std::vector<TokenId> wrong = {-1};
    EXPECT_FALSE(Step({.sequence = sequence.get(), .tokens = wrong}).ok());
    const auto result =
        Step({.sequence = sequence.get(), .tokens = {&tokens[i], 1}, .all_hidden = true});
    ASSERT_TRUE(result.ok()) << result.status();
    const std::vector<float>& row = result->front().hidden;
    hidden.insert(hidden.end(), row.begin(), row.end());
  }
  EXPECT_EQ(hidden, expected.hidden);
}

struct Shape {
  const char* name;
  int window, chunk, num_heads, head_dim, num_pred_heads;
};

class EvaByteShapeTest : public testing::TestWithParam<Shape> {};

INSTANTIATE_TEST_SUITE_P(Shapes, EvaByteShapeTest,
                         testing::Values(Shape{"every_token_its_own_window", 1, 1, 2, 8, 1},
                                         Shape{"one_chunk_a_window", 16, 16, 1, 40, 2},
                                         Shape{"a_window_is_a_page", 64, 8, 3, 24, 1},
                                         Shape{"a_window_ends_inside_a_page", 70, 7, 2, 16, 4},
                                         Shape{"summaries_cross_pages", 40, 1, 1, 64, 1},
                                         Shape{"no_window_is_full", 250, 50, 2, 32, 8}),
                         [](const auto& info) { return info.param.name; });

TEST_P(EvaByteShapeTest, AnyCutGivesTheSame) {
  const Shape shape = GetParam();
  EvaByteConfig config = TinyConfig();
  config.window = shape.window;
  config.chunk = shape.chunk;
  config.num_heads = shape.num_heads;
  config.hidden_size = shape.num_heads * shape.head_dim;
  config.num_pred_heads = shape.num_pred_heads;
  config.intermediate_size = 1300;  // so wide that the MLP takes a window of 70 in two blocks
  config.norm_unit_offset = false;
  config.rope_scaling = RopeScaling::kLinear;
  config.rope_factor = 2.f;
  const TempDir dir;
  WriteRandomModel(dir.path(), config);
  const LoadedModel loaded(dir.path());
  const std::vector<TokenId> tokens = RandomTokens(200, 1);
  const Outputs whole = RunTokens(*loaded.model, tokens, WholeWindows());
  const Outputs single = RunTokens(*loaded.model, tokens, OneByOne());
  EXPECT_LE(MaxDifference(single.hidden, whole.hidden), kCutTolerance);
  EXPECT_LE(MaxDifference(single.logits, whole.logits), kCutTolerance);
  const StatePool pool = loaded.model->state_pool();
  EXPECT_EQ(pool.free_pages, pool.total_pages);
}

TEST(EvaByteLoadTest, ABfloat16CheckpointIsTheSameInFloat32) {
  EvaByteConfig config = TinyConfig();
  config.dtype = DType::kBFloat16;
  const TempDir dir;
  WriteRandomModel(dir.path(), config);
  const LoadedModel as_stored(dir.path());
  const LoadedModel widened(dir.path(), {.dtype = DType::kFloat32});
  EXPECT_EQ(as_stored.model->info().dtype, DType::kBFloat16);
  const std::vector<TokenId> tokens = RandomTokens(30, 1);
  const Outputs a = RunTokens(*as_stored.model, tokens, WholeWindows());
  const Outputs b = RunTokens(*widened.model, tokens, WholeWindows());
  // Weights are equal; activations are rounded to 8 bits in one of them.
  EXPECT_LE(MaxDifference(a.hidden, b.hidden), 0.2f);
  EXPECT_GT(MaxDifference(a.hidden, b.hidden), 0.f);
}

TEST(EvaByteLoadTest, AWindowLongerThanTheTextMakesChunksIrrelevant) {
  EvaByteConfig config = TinyConfig();
  config.window = 128;
  const TempDir dir, other_dir;
  WriteRandomModel(dir.path(), config);
  config.chunk = 32;
  WriteRandomModel(other_dir.path(), config);
  const LoadedModel chunk4(dir.path()), chunk32(other_dir.path());
  const std::vector<TokenId> tokens = RandomTokens(100, 1);
  EXPECT_EQ(RunTokens(*chunk4.model, tokens, WholeWindows()).logits,
            RunTokens(*chunk32.model, tokens, WholeWindows()).logits);
}

TEST(EvaByteLoadTest, ChunksOfOneTokenMakeWindowsIrrelevant) {
  EvaByteConfig config = TinyConfig();
  config.chunk = 1;
  const TempDir dir, other_dir;
  WriteRandomModel(dir.path(), config);
  config.window = 96;
  WriteRandomModel(other_dir.path(), config);
  const LoadedModel window24(dir.path()), window96(other_dir.path());
  const std::vector<TokenId> tokens = RandomTokens(90, 1);
  EXPECT_LE(MaxDifference(RunTokens(*window24.model, tokens, WholeWindows()).logits,
                          RunTokens(*window96.model, tokens, WholeWindows()).logits),
            kCutTolerance);
}

}  // namespace
}  // namespace evaserve
