#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/client.h"

namespace evaserve {

// What the model's configuration says, where nothing is given.
struct TranslateOptions {
  std::string model;  // empty: the only one served
  std::optional<int32_t> beam_size;
  std::optional<float> length_penalty;
  std::optional<int32_t> max_tokens;
};

struct Translation {
  std::string text;
  float score = 0;  // log-probability, divided by the length's power
};

// Translates all texts in one request to a translation model. Errors are the server's, and Internal
// for an answer that is none.
absl::StatusOr<std::vector<Translation>> Translate(Client& client,
                                                   std::span<const std::string> texts,
                                                   const TranslateOptions& options,
                                                   const CallOptions& call = {});

}  // namespace evaserve
