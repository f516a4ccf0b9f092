#include "models/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/token_filters.h"

namespace evaserve {
namespace {

constexpr int kMaxTopLogprobs = 20;
constexpr float kMaxBias = 100.f;

absl::Status Refuse(const char* field, double value, const char* allowed) {
  return absl::InvalidArgumentError(absl::StrCat(field, " is ", value, "; it must be ", allowed));
}

uint64_t RandomSeed() {
  std::random_device device;
  return uint64_t{device()} << 32 | device();
}

// From [0, 1), of the generator's upper 53 bits: the same on every platform, unlike std's
// distributions.
double Uniform(std::mt19937_64& random) { return static_cast<double>(random() >> 11) * 0x1p-53; }

TokenId Draw(std::span<const float> probabilities, double uniform) {
  const double total = std::accumulate(probabilities.begin(), probabilities.end(), 0.0);
  double rest = uniform * total;
  TokenId last_possible = 0;
  for (size_t token = 0; token < probabilities.size(); ++token) {
    if (probabilities[token] == 0) continue;
    last_possible = static_cast<TokenId>(token);
    rest -= probabilities[token];
    if (rest < 0) break;
  }
  return last_possible;
}

}  // namespace

absl::Status Validate(const SamplingParams& params) {
  // Each condition is written so that NaN fails it.
  if (!(params.temperature >= 0) || std::isinf(params.temperature)) {
    return Refuse("temperature", params.temperature, "a number of at least 0");
  }
  if (params.top_k < 0) return Refuse("top_k", params.top_k, "at least 0");
  if (!(params.top_p > 0 && params.top_p <= 1)) {
    return Refuse("top_p", params.top_p, "above 0 and at most 1");
  }
  if (!(params.min_p >= 0 && params.min_p <= 1)) {
    return Refuse("min_p", params.min_p, "from 0 to 1");
  }
  if (!(params.repetition_penalty > 0) || std::isinf(params.repetition_penalty)) {
    return Refuse("repetition_penalty", params.repetition_penalty, "a number above 0");
  }
  for (const auto& [token, bias] : params.logit_bias) {
    if (token < 0) return Refuse("logit_bias token", token, "at least 0");
    if (!(std::abs(bias) <= kMaxBias)) return Refuse("logit_bias", bias, "from -100 to 100");
  }
  if (params.top_logprobs < 0 || params.top_logprobs > kMaxTopLogprobs) {
    return Refuse("top_logprobs", params.top_logprobs, "from 0 to 20");
  }
  return absl::OkStatus();
}

Sampler::Sampler(SamplingParams params)
    : params_(std::move(params)),
      seed_(params_.seed ? *params_.seed : RandomSeed()),
      random_(seed_) {}

void Sampler::Observe(std::span<const TokenId> tokens) {
  if (params_.repetition_penalty == 1.0) return;
  for (TokenId token : tokens) {
    if (token < 0) continue;
    if (static_cast<size_t>(token) >= seen_.size()) seen_.resize(token + 1);
    seen_[token] = true;
  }
}

SampledToken Sampler::Sample(std::span<const float> logits) {
  adjusted_.assign(logits.begin(), logits.end());
  AdjustLogits(params_, seen_, adjusted_);
  SampledToken result;
  if (params_.temperature == 0) {
    const auto best = std::max_element(adjusted_.begin(), adjusted_.end());
    result.chosen.token = static_cast<TokenId>(best - adjusted_.begin());
  } else {
    FilterToProbabilities(params_, adjusted_, ranking_);
    result.chosen.token = Draw(adjusted_, Uniform(random_));
  }
  Observe({&result.chosen.token, 1});
  const float log_normalizer = LogSumExp(logits);
  result.chosen.logprob = logits[result.chosen.token] - log_normalizer;
  const size_t num_top = params_.top_logprobs;
  if (num_top > 0) result.top = MostLikely(logits, num_top, log_normalizer, ranking_);
  return result;
}

}  // namespace evaserve
