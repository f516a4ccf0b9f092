#include "models/token_filters.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace evaserve {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kMaxFloat = std::numeric_limits<float>::max();
constexpr float kBan = -100.f;

bool AnyPossible(std::span<const float> logits) {
  return std::any_of(logits.begin(), logits.end(), [](float x) { return x > -kInfinity; });
}

void MakeFinite(std::span<float> logits) {
  for (float& logit : logits) {
    if (std::isnan(logit)) logit = -kInfinity;
    logit = std::min(logit, kMaxFloat);
  }
  if (!AnyPossible(logits)) std::fill(logits.begin(), logits.end(), 0.f);
}

bool IsBan(const std::pair<TokenId, float>& bias) { return bias.second <= kBan; }

bool IsToken(TokenId token, std::span<const float> logits) {
  return token >= 0 && static_cast<size_t>(token) < logits.size();
}

void AddBias(const SamplingParams& params, std::span<float> logits) {
  for (const auto& bias : params.logit_bias) {
    if (IsToken(bias.first, logits) && !IsBan(bias)) logits[bias.first] += bias.second;
  }
}

// Bans, and takes it back if no token is left.
void Ban(const SamplingParams& params, std::span<float> logits) {
  std::vector<std::pair<TokenId, float>> before;
  for (const auto& bias : params.logit_bias) {
    if (!IsToken(bias.first, logits) || !IsBan(bias)) continue;
    before.emplace_back(bias.first, logits[bias.first]);
    logits[bias.first] = -kInfinity;
  }
  if (before.empty() || AnyPossible(logits)) return;
  // Backwards, since a token may be banned twice.
  for (auto it = before.rbegin(); it != before.rend(); ++it) logits[it->first] = it->second;
}

// Zeroes all but the tokens that top_k and top_p keep.
void KeepMostLikely(const SamplingParams& params, std::span<float> probabilities,
                    std::vector<TokenId>& ranking) {
  ranking.resize(probabilities.size());
  std::iota(ranking.begin(), ranking.end(), 0);
  const auto more_likely = [&](TokenId a, TokenId b) {
    return probabilities[a] > probabilities[b] || (probabilities[a] == probabilities[b] && a < b);
  };
  auto end = ranking.end();
  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < ranking.size()) {
    end = ranking.begin() + params.top_k;
    std::nth_element(ranking.begin(), end, ranking.end(), more_likely);
    std::for_each(end, ranking.end(), [&](TokenId token) { probabilities[token] = 0.f; });
  }
  if (params.top_p >= 1.0) return;
  const double total = std::accumulate(ranking.begin(), end, 0.0, [&](double sum, TokenId token) {
    return sum + probabilities[token];
  });
  const auto less_likely = [&](TokenId a, TokenId b) { return more_likely(b, a); };
  std::make_heap(ranking.begin(), end, less_likely);
  for (double mass = 0; mass < params.top_p * total && end != ranking.begin(); --end) {
    mass += probabilities[ranking.front()];
    std::pop_heap(ranking.begin(), end, less_likely);
  }
  std::for_each(ranking.begin(), end, [&](TokenId token) { probabilities[token] = 0.f; });
}

}  // namespace

void AdjustLogits(const SamplingParams& params, const std::vector<bool>& seen,
                  std::span<float> logits) {
  MakeFinite(logits);
  AddBias(params, logits);
  Ban(params, logits);
  if (params.repetition_penalty == 1.0) return;
  for (size_t token = 0; token < std::min(seen.size(), logits.size()); ++token) {
    if (!seen[token] || logits[token] == -kInfinity) continue;
    const double logit = logits[token], penalty = params.repetition_penalty;
    const double penalized = logit > 0 ? logit / penalty : logit * penalty;
    logits[token] = static_cast<float>(std::clamp<double>(penalized, -kMaxFloat, kMaxFloat));
  }
}

void FilterToProbabilities(const SamplingParams& params, std::span<float> logits,
                           std::vector<TokenId>& ranking) {
  const float best = *std::max_element(logits.begin(), logits.end());
  for (float& x : logits) {
    x = std::exp(static_cast<float>((double{x} - best) / params.temperature));
  }
  if (params.top_k > 0 || params.top_p < 1.0) KeepMostLikely(params, logits, ranking);
  double total = 0;
  for (float& p : logits) {
    if (p < params.min_p) p = 0.f;  // the best one has p = 1 here
    total += p;
  }
  for (float& p : logits) p = static_cast<float>(p / total);
}

float LogSumExp(std::span<const float> logits) {
  const float best = *std::max_element(logits.begin(), logits.end());
  if (std::isinf(best)) return best;
  double total = 0;
  for (float x : logits) total += std::exp(x - best);
  return best + static_cast<float>(std::log(total));
}

std::vector<TokenLogprob> MostLikely(std::span<const float> logits, size_t count,
                                     float log_normalizer, std::vector<TokenId>& ranking) {
  std::vector<TokenLogprob> top(std::min(count, logits.size()));
  ranking.resize(logits.size());
  std::iota(ranking.begin(), ranking.end(), 0);
  std::partial_sort(ranking.begin(), ranking.begin() + std::ssize(top), ranking.end(),
                    [&](TokenId a, TokenId b) {
                      return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
                    });
  for (size_t i = 0; i < top.size(); ++i) {
    top[i] = {ranking[i], logits[ranking[i]] - log_normalizer};
  }
  return top;
}

}  // namespace evaserve
