#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "models/tokenizer.h"

namespace evaserve {

// Filters apply in this order: logit_bias, repetition_penalty, temperature, top_k, top_p, min_p.
struct SamplingParams {
  double temperature = 1.0;         // >= 0; 0 takes the most likely token
  int top_k = 0;                    // keep the k most likely tokens; 0 keeps all
  double top_p = 1.0;               // (0, 1]: keep the smallest set with at least this probability
  double min_p = 0.0;               // [0, 1]: keep tokens at least this likely relative to the best
  double repetition_penalty = 1.0;  // > 0; divides positive logits of tokens seen before, and
                                    // multiplies negative ones (prompt included)
  std::optional<uint64_t> seed = {};  // absent: a random one, which Sampler::seed() tells
  std::vector<std::pair<TokenId, float>> logit_bias = {};  // [-100, 100]; -100 bans the token
  int top_logprobs = 0;  // 0 .. 20: how many of the most likely tokens to report with each
};

// InvalidArgument, naming the field, its value and what is allowed.
absl::Status Validate(const SamplingParams& params);

struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0.f;  // natural log, of the model's own distribution before any filter
};

struct SampledToken {
  TokenLogprob chosen;
  std::vector<TokenLogprob> top;  // top_logprobs entries, most likely first
};

// Draws the tokens of one sequence. The same seed, parameters and logits give the same tokens.
// Not thread-safe.
class Sampler {
 public:
  // `params` are valid.
  explicit Sampler(SamplingParams params);

  // Tokens that the repetition penalty counts as seen.
  void Observe(std::span<const TokenId> tokens);

  // Draws from `logits` [vocab_size] and observes the result. Any logits will do: one that is not a
  // number counts as banned, and if all tokens are banned, the bans do not count.
  SampledToken Sample(std::span<const float> logits);

  uint64_t seed() const { return seed_; }

 private:
  SamplingParams params_;
  uint64_t seed_;
  std::mt19937_64 random_;
  std::vector<bool> seen_;        // by token, grown on demand
  std::vector<float> adjusted_;   // scratch of Sample()
  std::vector<TokenId> ranking_;  // scratch of Sample()
};

}  // namespace evaserve
