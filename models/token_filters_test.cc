#include "models/token_filters.h"

#include <cmath>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/testing/special_floats.h"

namespace evaserve {
namespace {

using testing::ElementsAre;
using testing::FloatNear;

constexpr float kTolerance = 1e-6f;

std::vector<float> Probabilities(const SamplingParams& params, std::vector<float> probabilities) {
  std::vector<TokenId> ranking;
  for (float& p : probabilities) p = std::log(p);
  FilterToProbabilities(params, probabilities, ranking);
  return probabilities;
}

auto Are(float a, float b, float c, float d) {
  return ElementsAre(FloatNear(a, kTolerance), FloatNear(b, kTolerance), FloatNear(c, kTolerance),
                     FloatNear(d, kTolerance));
}

TEST(TokenFiltersTest, WithoutFiltersIsTheSoftmax) {
  EXPECT_THAT(Probabilities({}, {.1f, .4f, .2f, .3f}), Are(.1f, .4f, .2f, .3f));
}

TEST(TokenFiltersTest, TopKKeepsTheMostLikely) {
  EXPECT_THAT(Probabilities({.top_k = 2}, {.1f, .4f, .2f, .3f}), Are(0, 4 / 7.f, 0, 3 / 7.f));
  EXPECT_THAT(Probabilities({.top_k = 9}, {.1f, .4f, .2f, .3f}), Are(.1f, .4f, .2f, .3f));
}

TEST(TokenFiltersTest, TopKKeepsTheFirstOfEqualTokens) {
  EXPECT_THAT(Probabilities({.top_k = 2}, {.25f, .25f, .25f, .25f}), Are(.5f, .5f, 0, 0));
}

TEST(TokenFiltersTest, TopPKeepsTheSmallestSetThatReachesIt) {
  EXPECT_THAT(Probabilities({.top_p = .69}, {.1f, .4f, .2f, .3f}), Are(0, 4 / 7.f, 0, 3 / 7.f));
  EXPECT_THAT(Probabilities({.top_p = .71}, {.1f, .4f, .2f, .3f}),
              Are(0, 4 / 9.f, 2 / 9.f, 3 / 9.f));
  EXPECT_THAT(Probabilities({.top_p = 1e-9}, {.1f, .4f, .2f, .3f}), Are(0, 1, 0, 0));
}

TEST(TokenFiltersTest, TopPCountsWhatTopKLeft) {
  // Of the two that top_k keeps, the first alone has 4/7.
  EXPECT_THAT(Probabilities({.top_k = 2, .top_p = .5}, {.1f, .4f, .2f, .3f}), Are(0, 1, 0, 0));
}

TEST(TokenFiltersTest, MinPIsRelativeToTheBest) {
  EXPECT_THAT(Probabilities({.min_p = .6}, {.1f, .4f, .2f, .3f}), Are(0, 4 / 7.f, 0, 3 / 7.f));
}

TEST(TokenFiltersTest, TemperatureComesBeforeTheFilters) {
  // At temperature 1/2 the probabilities are as 1, 16, 4, 9 to 30.
  EXPECT_THAT(Probabilities({.temperature = .5, .top_p = .5}, {.1f, .4f, .2f, .3f}),
              Are(0, 1, 0, 0));
}

TEST(TokenFiltersTest, BiasAddsAndBans) {
  std::vector<float> logits = {1.f, 2.f, 3.f};
  AdjustLogits({.logit_bias = {{0, 5.f}, {2, -100.f}, {17, 1.f}}}, {}, logits);
  EXPECT_THAT(logits, ElementsAre(6.f, 2.f, -kInf));
}

TEST(TokenFiltersTest, BansDoNotCountIfNothingIsLeft) {
  std::vector<float> logits = {1.f, 2.f};
  AdjustLogits({.logit_bias = {{0, -100.f}, {1, -100.f}}}, {}, logits);
  EXPECT_THAT(logits, ElementsAre(1.f, 2.f));
}

TEST(TokenFiltersTest, TheRepetitionPenaltyStaysFinite) {
  std::vector<float> logits = {1e30f, -1e30f, -kInf, 5.f};
  AdjustLogits({.repetition_penalty = 1e-300}, {true, true, true}, logits);
  EXPECT_THAT(logits, ElementsAre(std::numeric_limits<float>::max(), 0.f, -kInf, 5.f));
  AdjustLogits({.repetition_penalty = 1e300}, {false, false, false, true}, logits);
  EXPECT_EQ(logits[3], 0.f);
}

TEST(TokenFiltersTest, LogitsWithoutANumberAreEqual) {
  std::vector<float> logits = {kNan, -kInf};
  AdjustLogits({}, {}, logits);
  EXPECT_THAT(logits, ElementsAre(0.f, 0.f));
}

TEST(TokenFiltersTest, LogSumExpSurvivesLargeLogits) {
  EXPECT_NEAR(LogSumExp(std::vector<float>{1000.f, 1000.f}), 1000 + std::log(2.0), 1e-4);
  EXPECT_EQ(LogSumExp(std::vector<float>{-kInf, -kInf}), -kInf);
}

TEST(TokenFiltersTest, TheMostLikelyComeFirstAndOfEqualOnesTheSmallerNumber) {
  std::vector<TokenId> ranking;
  const std::vector<float> logits = {1.f, 3.f, 0.f, 3.f};
  const auto tokens = [&](size_t count) {
    std::vector<TokenId> tokens;
    for (const TokenLogprob& one : MostLikely(logits, count, 4.f, ranking)) {
      EXPECT_EQ(one.logprob, logits[one.token] - 4.f);
      tokens.push_back(one.token);
    }
    return tokens;
  };
  EXPECT_THAT(tokens(3), ElementsAre(1, 3, 0));
  EXPECT_THAT(tokens(9), ElementsAre(1, 3, 0, 2));
  EXPECT_THAT(tokens(0), ElementsAre());
}

}  // namespace
}  // namespace evaserve
