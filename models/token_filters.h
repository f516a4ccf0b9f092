#pragma once

#include <span>
#include <vector>

#include "models/sampler.h"
#include "models/tokenizer.h"

namespace evaserve {

// What a Sampler decides with: pure functions of parameters and logits. Parameters are valid.

// Applies logit_bias, then repetition_penalty for the tokens of `seen`, in place. A banned token
// and one whose logit is not a number get -infinity; +infinity becomes the largest float.
//
// At least one token stays possible: if every one is banned, the bans do not count, and logits
// among which no number is left are equal ones.
void AdjustLogits(const SamplingParams& params, const std::vector<bool>& seen,
                  std::span<float> logits);

// Turns adjusted logits into probabilities, in place: divides by the temperature, which is above 0,
// and applies top_k, top_p and min_p, each to what the one before it kept, renormalised. Among
// equally likely tokens the one with the smaller number goes first. `ranking` is scratch.
void FilterToProbabilities(const SamplingParams& params, std::span<float> logits,
                           std::vector<TokenId>& ranking);

// log(sum(exp(logits))).
float LogSumExp(std::span<const float> logits);

// The `count` most likely tokens, or all if they are fewer, with their log-probabilities: most
// likely first, and of equally likely ones that with the smaller number. `log_normalizer` is the
// logits' LogSumExp(), `ranking` scratch.
std::vector<TokenLogprob> MostLikely(std::span<const float> logits, size_t count,
                                     float log_normalizer, std::vector<TokenId>& ranking);

}  // namespace evaserve
