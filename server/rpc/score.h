#pragma once

#include <cstdint>
#include <span>

namespace evaserve {

// How likely a text of `num_bytes` bytes is.
struct TextScore {
  double log_likelihood = 0;  // natural log
  double bits_per_byte = 0;   // -log_likelihood / ln 2 / num_bytes
};

// From the natural log-probabilities of its tokens.
TextScore ScoreText(std::span<const float> logprobs, int64_t num_bytes);

}  // namespace evaserve
