#include "models/eva_encoder/config.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "models/io/json_fields.h"

namespace evaserve {
namespace {

constexpr int kMaxSize = 1 << 16;
constexpr int kMaxVocabulary = 1 << 24;
constexpr int kMaxLayers = 1024;

void ReadSizes(JsonFields& fields, EvaEncoderConfig& config) {
  const auto integer = [&](const char* key, std::optional<int64_t> fallback, int64_t max) {
    return static_cast<int>(fields.Integer(key, fallback, 1, max));
  };
  config.vocab_size = integer("vocab_size", {}, kMaxVocabulary);
  config.size = integer("hidden_size", {}, kMaxSize);
  config.mlp_size = integer("intermediate_size", {}, kMaxSize);
  config.num_heads = integer("num_attention_heads", {}, kMaxSize);
  config.num_layers = integer("num_hidden_layers", {}, kMaxLayers);
  config.max_tokens = integer("max_source_positions", 1024, kMaxSize);
  config.padding_idx = static_cast<int>(fields.Integer("padding_idx", 1, 0, config.vocab_size - 1));
  CheckPositions(fields, "max_source_positions", config.max_tokens, config.size);
  if (config.size % config.num_heads != 0) {
    fields.Fail("hidden_size",
                absl::StrCat("a multiple of num_attention_heads, ", config.num_heads));
  }
}

void ReadLayout(const nlohmann::json& json, JsonFields& fields, EvaEncoderConfig& config) {
  config.normalizes_before = fields.Boolean("normalize_before", false);
  config.activation = ReadActivation(fields, "relu");
  config.norm_eps = static_cast<float>(fields.Number("layer_norm_eps", 1e-5, 0, 1));
  config.embed_scale = ReadEmbedScale(json, fields, config.size);
  config.has_learned_positions = ReadHasLearnedPositions(fields);
  config.has_embedding_norm = fields.Boolean("layernorm_embedding", false);
}

void ReadMasks(JsonFields& fields, EvaEncoderConfig& config) {
  config.has_masked_lm_head = fields.Boolean("masked_lm_head", false);
  const std::string bpe = fields.String("bpe", "none");
  config.has_bpe = bpe == "subword_nmt";
  if (bpe != "subword_nmt" && bpe != "none") fields.Fail("bpe", "\"none\" or \"subword_nmt\"");
  if (!fields.Has("mask_token_id")) return;
  config.mask_token =
      static_cast<int32_t>(fields.Integer("mask_token_id", {}, 0, config.vocab_size - 1));
  if (config.mask_token == config.padding_idx) fields.Fail("mask_token_id", "not padding_idx");
}

absl::Status CheckAttention(const EvaEncoderConfig& config) {
  if (config.attention.is_2d) {
    return absl::InvalidArgumentError("attn_2d is true, allowed is false");
  }
  if (config.min_tokens() > config.max_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_landmarks is ", config.attention.num_landmarks, ", must be at most ",
                     config.RegionsOf(config.max_tokens).num_padded(),
                     ", what max_source_positions is padded "
                     "to"));
  }
  absl::Status status = ValidateHeads(config.num_heads, config.size / config.num_heads);
  status.Update(CheckBiases(config.attention, config.num_heads, config.num_layers));
  return status;
}

}  // namespace

int EvaEncoderConfig::min_tokens() const {
  return (attention.num_landmarks - 1) / attention.window * attention.window + 1;
}

absl::StatusOr<EvaEncoderConfig> ReadEvaEncoderConfig(const std::filesystem::path& file,
                                                      const nlohmann::json& json,
                                                      std::optional<DType> dtype) {
  JsonFields fields(json, file.string());
  EvaEncoderConfig config;
  ReadSizes(fields, config);
  ReadLayout(json, fields, config);
  ReadMasks(fields, config);
  config.dtype = ReadComputeType(fields, dtype);
  if (!fields.Has("attn")) fields.Fail("attn", "an object");
  if (!fields.status().ok()) return fields.status();
  absl::StatusOr<EvaAttentionConfig> attention =
      ReadEvaAttentionConfig(json["attn"], absl::StrCat(file.string(), ": attn"));
  if (!attention.ok()) return attention.status();
  config.attention = *attention;
  absl::Status status = CheckAttention(config);
  if (status.ok()) return config;
  return absl::InvalidArgumentError(
      absl::StrCat(file.string(), ": attn: ", std::string(status.message())));
}

}  // namespace evaserve
