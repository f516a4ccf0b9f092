#include "models/io/generation_config.h"

#include <cstdint>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "models/io/json_file.h"

namespace evaserve {

absl::StatusOr<GenerationConfig> ReadGenerationConfig(const std::filesystem::path& directory,
                                                      int vocab_size) {
  constexpr float kMaxFloat = std::numeric_limits<float>::max();
  GenerationConfig config;
  const std::filesystem::path path = directory / "generation_config.json";
  const absl::StatusOr<nlohmann::json> json = ReadJsonObject(path);
  if (absl::IsNotFound(json.status())) return config;
  if (!json.ok()) return json.status();
  JsonFields fields(*json, path.string());
  if (fields.Has("eos_token_id")) config.eos_tokens = ReadEosTokens(fields, {}, vocab_size);
  SamplingParams& sampling = config.sampling;
  sampling.temperature = fields.Number("temperature", sampling.temperature, 0, kMaxFloat);
  sampling.top_k = static_cast<int>(fields.Integer("top_k", sampling.top_k, 0, 1 << 20));
  sampling.top_p = fields.Number("top_p", sampling.top_p, 0, 1);
  sampling.min_p = fields.Number("min_p", sampling.min_p, 0, 1);
  sampling.repetition_penalty =
      fields.Number("repetition_penalty", sampling.repetition_penalty, 0, kMaxFloat);
  if (!fields.status().ok()) return fields.status();
  if (absl::Status status = Validate(sampling); !status.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": ", std::string(status.message())));
  }
  return config;
}

std::vector<TokenId> ReadEosTokens(JsonFields& fields, std::vector<TokenId> fallback,
                                   int vocab_size) {
  const std::vector<int64_t> ids =
      fields.Integers("eos_token_id", {fallback.begin(), fallback.end()}, 0, vocab_size - 1);
  return {ids.begin(), ids.end()};
}

}  // namespace evaserve
