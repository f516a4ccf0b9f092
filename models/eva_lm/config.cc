#include "models/eva_lm/config.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "models/io/generation_config.h"
#include "models/io/json_fields.h"
#include "models/text/dictionary.h"

namespace evaserve {
namespace {

constexpr int kMaxSize = 1 << 16;
constexpr int kMaxVocabulary = 1 << 24;
constexpr int kMaxLayers = 1024;

void ReadSizes(JsonFields& fields, EvaLmConfig& config) {
  const auto integer = [&](const char* key, std::optional<int64_t> fallback, int64_t min,
                           int64_t max) {
    return static_cast<int>(fields.Integer(key, fallback, min, max));
  };
  config.vocab_size = integer("vocab_size", {}, Dictionary::kNumSpecial, kMaxVocabulary);
  config.size = integer("hidden_size", {}, 4, kMaxSize);
  config.mlp_size = integer("intermediate_size", {}, 1, kMaxSize);
  config.num_heads = integer("num_attention_heads", {}, 1, kMaxSize);
  config.num_layers = integer("num_hidden_layers", {}, 1, kMaxLayers);
  config.max_positions = integer("max_target_positions", 512, 1, kMaxSize);
  config.padding_idx = integer("padding_idx", Dictionary::kPad, 0, config.vocab_size - 1);
  CheckPositions(fields, "max_target_positions", config.max_positions, config.size);
  if (config.size % config.num_heads != 0) {
    fields.Fail("hidden_size",
                absl::StrCat("a multiple of num_attention_heads, ", config.num_heads));
  }
  if (config.size % 2 != 0) fields.Fail("hidden_size", "even, as sinusoids are");
}

void ReadLayout(const nlohmann::json& json, JsonFields& fields, EvaLmConfig& config) {
  if (!fields.Boolean("normalize_before", true)) fields.Fail("normalize_before", "true");
  config.has_final_norm = fields.Boolean("final_norm", true);
  config.activation = ReadActivation(fields, "relu");
  config.norm_eps = static_cast<float>(fields.Number("layer_norm_eps", 1e-5, 0, 1));
  config.embed_scale = ReadEmbedScale(json, fields, config.size);
  if (fields.String("positions", "sinusoidal") != "sinusoidal") {
    fields.Fail("positions", "\"sinusoidal\"");
  }
  config.bos_token = static_cast<TokenId>(
      fields.Integer("bos_token_id", Dictionary::kEos, 0, config.vocab_size - 1));
  config.eos_tokens = ReadEosTokens(fields, {Dictionary::kEos}, config.vocab_size);
}

// All of adaptive_cutoff, adaptive_factor and the switches that the published models have set.
void ReadBands(JsonFields& fields, EvaLmConfig& config) {
  const std::vector<int64_t> cutoffs =
      fields.Integers("adaptive_cutoff", {}, 1, config.vocab_size - 1);
  config.cutoffs.assign(cutoffs.begin(), cutoffs.end());
  if (cutoffs.empty()) {
    fields.Fail("adaptive_cutoff", "where bands begin, since adaptive_input is true");
    return;
  }
  if (std::ranges::adjacent_find(cutoffs, std::greater_equal<>()) != cutoffs.end()) {
    fields.Fail("adaptive_cutoff", "in ascending order");
  }
  config.factor = static_cast<int>(fields.Integer("adaptive_factor", 4, 1, kMaxSize));
  if (config.BandSize(static_cast<int>(cutoffs.size())) < 1) {
    fields.Fail("adaptive_factor",
                absl::StrCat("such that hidden_size, ", config.size, ", lasts for all bands"));
  }
  for (const char* key : {"tie_adaptive_weights", "tie_adaptive_proj"}) {
    if (!fields.Boolean(key, true)) fields.Fail(key, "true, since adaptive_input is true");
  }
}

void ReadVocabulary(JsonFields& fields, EvaLmConfig& config) {
  if (fields.Boolean("adaptive_input", false)) return ReadBands(fields, config);
  if (fields.Has("adaptive_cutoff")) {
    fields.Fail("adaptive_cutoff", "null, since adaptive_input is false");
  }
  config.has_tied_output = fields.Boolean("share_input_output_embed", true);
}

}  // namespace

int EvaLmConfig::BandSize(int band) const {
  int64_t divisor = 1;
  for (int i = 0; i < band && divisor <= size; ++i) divisor *= factor;
  return static_cast<int>(size / divisor);
}

absl::StatusOr<EvaLmConfig> ReadEvaLmConfig(const std::filesystem::path& file,
                                            const nlohmann::json& json,
                                            std::optional<DType> dtype) {
  JsonFields fields(json, file.string());
  EvaLmConfig config;
  ReadSizes(fields, config);
  // What follows counts with them.
  if (!fields.status().ok()) return fields.status();
  ReadLayout(json, fields, config);
  ReadVocabulary(fields, config);
  config.dtype = ReadComputeType(fields, dtype);
  if (!fields.Has("attn")) fields.Fail("attn", "an object");
  if (!fields.status().ok()) return fields.status();
  const std::string where = absl::StrCat(file.string(), ": attn");
  absl::StatusOr<CausalAttentionConfig> attention = ReadCausalAttentionConfig(json["attn"], where);
  if (!attention.ok()) return attention.status();
  config.attention = *attention;
  absl::Status status = ValidateHeads(config.num_heads, config.size / config.num_heads);
  status.Update(CheckBiases(config.attention, config.num_layers));
  if (status.ok()) return config;
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", std::string(status.message())));
}

}  // namespace evaserve
