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

// Whether a token is possible.
bool MakeFinite(std::span<float> logits) {
  bool any = false;
  for (float& logit : logits) {
    if (std::isnan(logit)) logit = -kInfinity;
    logit = std::min(logit, kMaxFloat);
    any |= logit > -kInfinity;
  }
  return any;
}

bool IsBan(const std::pair<TokenId, float>& bias) { return bias.second <= kBan; }

// Whether a possible token would be left.
bool CanBan(const SamplingParams& params, std::span<const float> logits) {
  for (size_t token = 0; token < logits.size(); ++token) {
    const bool banned = std::any_of(
        params.logit_bias.begin(), params.logit_bias.end(),
        [&](const auto& bias) { return IsBan(bias) && bias.first == static_cast<TokenId>(token); });
    if (!banned && logits[token] > -kInfinity) return true;
  }
  return false;
}

void ApplyBias(const SamplingParams& params, std::span<float> logits) {
  const bool can_ban = CanBan(params, logits);
  for (const auto& bias : params.logit_bias) {
    const auto [token, value] = bias;
    if (token < 0 || static_cast<size_t>(token) >= logits.size()) continue;
    if (!IsBan(bias)) {
      logits[token] += value;
    } else if (can_ban) {
      logits[token] = -kInfinity;
    }
  }
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
  if (!MakeFinite(logits)) std::fill(logits.begin(), logits.end(), 0.f);
  if (!params.logit_bias.empty()) ApplyBias(params, logits);
  if (params.repetition_penalty == 1.0) return;
  const auto penalty = static_cast<float>(params.repetition_penalty);
  for (size_t token = 0; token < std::min(seen.size(), logits.size()); ++token) {
    if (!seen[token]) continue;
    logits[token] = logits[token] > 0 ? logits[token] / penalty : logits[token] * penalty;
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

}  // namespace evaserve
