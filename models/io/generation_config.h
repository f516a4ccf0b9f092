#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "models/io/json_fields.h"
#include "models/sampler.h"
#include "models/tokenizer.h"

namespace evaserve {

struct GenerationConfig {
  std::optional<std::vector<TokenId>> eos_tokens;
  SamplingParams sampling;
};

// Reads generation_config.json of `directory`; what the file does not say, or a missing file,
// leaves defaults. InvalidArgument, naming the file, the key, its value and what is allowed.
absl::StatusOr<GenerationConfig> ReadGenerationConfig(const std::filesystem::path& directory,
                                                      int vocab_size);

// "eos_token_id" of either config: a token or a list of them. An error of `fields` for one outside
// [0, vocab_size).
std::vector<TokenId> ReadEosTokens(JsonFields& fields, std::vector<TokenId> fallback,
                                   int vocab_size);

}  // namespace evaserve
