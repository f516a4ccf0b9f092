#include "models/sampler.h"

#include <cmath>

#include "gtest/gtest.h"
#include "models/testing/special_floats.h"
#include "models/testing/status_matchers.h"

namespace evaserve {
namespace {

std::vector<double> Softmax(std::span<const float> logits, double temperature) {
  std::vector<double> p;
  double total = 0;
  for (float x : logits) total += p.emplace_back(std::exp(x / temperature));
  for (double& x : p) x /= total;
  return p;
}

std::vector<int> Count(const SamplingParams& params, std::span<const float> logits, int draws) {
  Sampler sampler(params);
  std::vector<int> counts(logits.size());
  for (int i = 0; i < draws; ++i) ++counts[sampler.Sample(logits).chosen.token];
  return counts;
}

// Chi square over its degrees of freedom; about 1 for draws from `expected`.
double ChiSquare(const std::vector<int>& counts, const std::vector<double>& expected, int draws) {
  double sum = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    const double mean = expected[i] * draws;
    sum += (counts[i] - mean) * (counts[i] - mean) / mean;
  }
  return sum / static_cast<double>(counts.size() - 1);
}

std::vector<float> Slope(int size) {
  std::vector<float> logits(size);
  for (int i = 0; i < size; ++i) logits[i] = 0.05f * static_cast<float>(i * 7 % size);
  return logits;
}

TEST(SamplerTest, DefaultsDrawFromTheSoftmax) {
  constexpr int kDraws = 200'000;
  const std::vector<float> logits = Slope(50);
  const std::vector<int> counts = Count({.seed = 7}, logits, kDraws);
  // With 49 degrees of freedom a value above 1.8 comes once in a thousand seeds.
  EXPECT_LT(ChiSquare(counts, Softmax(logits, 1.0), kDraws), 1.8);
  EXPECT_GT(ChiSquare(counts, Softmax(logits, 1.1), kDraws), 1.8) << "the test sees no difference";
}

TEST(SamplerTest, TemperatureDividesLogits) {
  constexpr int kDraws = 200'000;
  const std::vector<float> logits = Slope(50);
  const std::vector<int> counts = Count({.temperature = 2.5, .seed = 8}, logits, kDraws);
  EXPECT_LT(ChiSquare(counts, Softmax(logits, 2.5), kDraws), 1.8);
}

TEST(SamplerTest, TheSameSeedGivesTheSameTokens) {
  const std::vector<float> logits = Slope(320);
  Sampler a({.seed = 42}), b({.seed = 42}), c({.seed = 43});
  int differences = 0;
  for (int i = 0; i < 100; ++i) {
    const TokenId token = a.Sample(logits).chosen.token;
    EXPECT_EQ(token, b.Sample(logits).chosen.token);
    differences += token != c.Sample(logits).chosen.token;
  }
  EXPECT_GT(differences, 50);
}

TEST(SamplerTest, TellsARandomSeedThatRepeatsIt) {
  const std::vector<float> logits = Slope(320);
  Sampler a({}), other({});
  Sampler b({.seed = a.seed()});
  EXPECT_NE(a.seed(), other.seed());
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(a.Sample(logits).chosen.token, b.Sample(logits).chosen.token);
  }
}

TEST(SamplerTest, TemperatureZeroTakesTheFirstOfTheMostLikely) {
  Sampler sampler({.temperature = 0});
  EXPECT_EQ(sampler.Sample(std::vector<float>{1.f, 3.f, 3.f, 2.f}).chosen.token, 1);
}

TEST(SamplerTest, ReportsLogProbabilitiesBeforeAnyFilter) {
  const std::vector<float> logits = {1.f, 2.f, 4.f, 3.f};
  Sampler sampler({.temperature = 0, .top_k = 1, .logit_bias = {{2, -100.f}}, .top_logprobs = 2});
  const SampledToken token = sampler.Sample(logits);
  const std::vector<double> p = Softmax(logits, 1.0);
  EXPECT_EQ(token.chosen.token, 3);
  EXPECT_NEAR(token.chosen.logprob, std::log(p[3]), 1e-6);
  ASSERT_EQ(token.top.size(), 2u);
  EXPECT_EQ(token.top[0].token, 2);
  EXPECT_NEAR(token.top[0].logprob, std::log(p[2]), 1e-6);
  EXPECT_EQ(token.top[1].token, 3);
}

TEST(SamplerTest, TheRepetitionPenaltyCountsPromptAndDraws) {
  Sampler sampler({.temperature = 0, .repetition_penalty = 2.0});
  const TokenId prompt[] = {0};
  sampler.Observe(prompt);
  const std::vector<float> logits = {3.f, 2.f, 1.9f, -1.f};
  EXPECT_EQ(sampler.Sample(logits).chosen.token, 1);  // 1.5, 2, 1.9, -1
  EXPECT_EQ(sampler.Sample(logits).chosen.token, 2);  // 1.5, 1, 1.9, -1
  EXPECT_EQ(sampler.Sample(logits).chosen.token, 0);  // 1.5, 1, 0.95, -1
}

TEST(SamplerTest, NeverDrawsWhatIsNotANumber) {
  const std::vector<int> counts =
      Count({.seed = 1}, std::vector<float>{kNan, 0.f, -kInf, 0.f}, 1000);
  EXPECT_EQ(counts[0] + counts[2], 0);
  EXPECT_GT(counts[1], 400);
}

TEST(SamplerTest, AnInfiniteLogitWins) {
  EXPECT_EQ(Count({.seed = 1}, std::vector<float>{0.f, kInf, 5.f}, 100)[1], 100);
}

TEST(SamplerTest, ATinyTemperatureIsGreedy) {
  EXPECT_EQ(Count({.temperature = 1e-300, .seed = 1}, std::vector<float>{0.f, 1.f, 5.f}, 100)[2],
            100);
}

TEST(SamplerTest, RefusesParametersOutOfRangeAndNamesThem) {
  EXPECT_TRUE(Validate(SamplingParams{}).ok());
  EXPECT_THAT(Validate({.temperature = -1}), IsError(kInvalid, "temperature", "-1"));
  EXPECT_THAT(Validate({.temperature = kNan}), IsError(kInvalid, "temperature"));
  EXPECT_THAT(Validate({.temperature = kInf}), IsError(kInvalid, "temperature"));
  EXPECT_THAT(Validate({.top_k = -1}), IsError(kInvalid, "top_k", "-1"));
  EXPECT_THAT(Validate({.top_p = 0}), IsError(kInvalid, "top_p", "above 0 and at most 1"));
  EXPECT_THAT(Validate({.top_p = 1.1}), IsError(kInvalid, "top_p", "1.1"));
  EXPECT_THAT(Validate({.min_p = -0.1}), IsError(kInvalid, "min_p"));
  EXPECT_THAT(Validate({.min_p = kNan}), IsError(kInvalid, "min_p"));
  EXPECT_THAT(Validate({.repetition_penalty = 0}), IsError(kInvalid, "repetition_penalty"));
  EXPECT_THAT(Validate({.logit_bias = {{-1, 0.f}}}), IsError(kInvalid, "logit_bias token"));
  EXPECT_THAT(Validate({.logit_bias = {{1, 101.f}}}), IsError(kInvalid, "logit_bias", "101"));
  EXPECT_THAT(Validate({.top_logprobs = 21}), IsError(kInvalid, "top_logprobs", "21"));
}

}  // namespace
}  // namespace evaserve
