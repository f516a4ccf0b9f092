#include "server/rpc/score.h"

#include <numbers>
#include <numeric>

namespace evaserve {

TextScore ScoreText(std::span<const float> logprobs, int64_t num_bytes) {
  const double sum = std::accumulate(logprobs.begin(), logprobs.end(), 0.0);
  return {sum, -sum / std::numbers::ln2 / static_cast<double>(num_bytes)};
}

}  // namespace evaserve
