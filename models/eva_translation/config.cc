#include "models/eva_translation/config.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/io/json_fields.h"
#include "models/text/dictionary.h"

namespace evaserve {
namespace {

constexpr int kMaxSize = 1 << 16;
constexpr int kMaxVocabulary = 1 << 24;
constexpr int kMaxLayers = 1024;

void ReadDecoderSizes(JsonFields& fields, TranslationDecoderConfig& config) {
  const auto integer = [&](const char* key, std::optional<int64_t> fallback, int64_t min,
                           int64_t max) {
    return static_cast<int>(fields.Integer(key, fallback, min, max));
  };
  config.vocab_size = integer("vocab_size", {}, Dictionary::kNumSpecial, kMaxVocabulary);
  config.size = integer("hidden_size", {}, 4, kMaxSize);
  config.mlp_size = integer("intermediate_size", {}, 1, kMaxSize);
  config.num_heads = integer("num_attention_heads", {}, 1, kMaxSize);
  config.num_layers = integer("num_hidden_layers", {}, 1, kMaxLayers);
  config.max_tokens = integer("max_target_positions", 1024, 2, kMaxSize);
  CheckPositions(fields, "max_target_positions", config.max_tokens, config.size);
  if (config.num_heads > 0 && config.size % config.num_heads != 0) {
    fields.Fail("hidden_size",
                absl::StrCat("a multiple of num_attention_heads, ", config.num_heads));
  }
}

absl::StatusOr<TranslationDecoderConfig> ReadDecoder(const std::string& where,
                                                     const nlohmann::json& json) {
  JsonFields fields(json, where);
  TranslationDecoderConfig config;
  ReadDecoderSizes(fields, config);
  config.normalizes_before = fields.Boolean("normalize_before", false);
  config.activation = ReadActivation(fields, "relu");
  config.norm_eps = static_cast<float>(fields.Number("layer_norm_eps", 1e-5, 0, 1));
  config.embed_scale = ReadEmbedScale(json, fields, config.size);
  config.has_learned_positions = ReadHasLearnedPositions(fields);
  config.has_embedding_norm = fields.Boolean("layernorm_embedding", false);
  if (!fields.status().ok()) return fields.status();
  absl::Status status = ValidateHeads(config.num_heads, config.head_dim());
  if (status.ok()) return config;
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", std::string(status.message())));
}

absl::StatusOr<TranslationSearchConfig> ReadSearch(const std::string& where,
                                                   const nlohmann::json& json) {
  JsonFields fields(json, where);
  TranslationSearchConfig config;
  const auto integer = [&](const char* key, int fallback, int min, int max) {
    return static_cast<int>(fields.Integer(key, fallback, min, max));
  };
  config.beam_size = integer("beam_size", config.beam_size, 1, kMaxBeamSize);
  config.length_penalty =
      fields.Number("length_penalty", config.length_penalty, -kMaxLengthPenalty, kMaxLengthPenalty);
  config.unk_penalty = fields.Number("unk_penalty", config.unk_penalty, -1e6, 1e6);
  config.max_len_a = fields.Number("max_len_a", config.max_len_a, 0, 1e3);
  config.max_len_b = integer("max_len_b", config.max_len_b, 0, kMaxSize);
  config.min_len = integer("min_len", config.min_len, 0, kMaxSize);
  config.no_repeat_ngram_size =
      integer("no_repeat_ngram_size", config.no_repeat_ngram_size, 0, kMaxSize);
  if (config.max_len_a == 0 && config.max_len_b == 0) {
    fields.Fail("max_len_b", "at least 1 where max_len_a is 0");
  }
  if (!fields.status().ok()) return fields.status();
  return config;
}

// The object at `key`, an empty one if it is absent and need not be there.
absl::StatusOr<nlohmann::json> ReadObject(const std::string& where, const nlohmann::json& json,
                                          const char* key, bool is_optional) {
  const auto found = json.find(key);
  const bool is_absent = found == json.end() || found->is_null();
  if (is_absent && is_optional) return nlohmann::json::object();
  if (is_absent || !found->is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": \"", key, "\" is ",
                     is_absent ? "missing" : found->dump().substr(0, 64), ", must be an object"));
  }
  return *found;
}

absl::Status CheckParts(const EvaTranslationConfig& config) {
  const EvaEncoderConfig& encoder = config.encoder;
  const TranslationDecoderConfig& decoder = config.decoder;
  if (encoder.padding_idx != Dictionary::kPad) {
    return absl::InvalidArgumentError(absl::StrCat(
        "encoder: \"padding_idx\" is ", encoder.padding_idx, ", must be ", Dictionary::kPad));
  }
  if (encoder.has_masked_lm_head) {
    return absl::InvalidArgumentError("encoder: \"masked_lm_head\" is true, must be false");
  }
  if (config.ties_all_embeddings &&
      (encoder.vocab_size != decoder.vocab_size || encoder.size != decoder.size)) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"share_all_embeddings\" is true, but embeddings are [", encoder.vocab_size,
                     ", ", encoder.size, "] and [", decoder.vocab_size, ", ", decoder.size, "]"));
  }
  return absl::OkStatus();
}

bool IsPlainName(const std::string& name) {
  return !name.empty() && name.find_first_not_of(
                              "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWX"
                              "YZ0123456789_-") == std::string::npos;
}

TranslationTextConfig ReadText(JsonFields& fields) {
  TranslationTextConfig config;
  const std::string tokenization = fields.String("tokenization", "moses");
  if (tokenization != "moses" && tokenization != "space") {
    fields.Fail("tokenization", "\"moses\" or \"space\"");
  }
  const bool is_moses = tokenization == "moses";
  config.tokenization = is_moses ? Tokenization::kMoses : Tokenization::kSpace;
  config.source_lang = fields.String("source_lang", "en");
  config.target_lang = fields.String("target_lang", "de");
  for (const auto& [key, name] :
       {std::pair{"source_lang", config.source_lang}, {"target_lang", config.target_lang}}) {
    // Part of a file's name.
    if (!IsPlainName(name)) fields.Fail(key, "a name of letters, digits, _ and -");
    if (is_moses && name != "en" && name != "de") {
      fields.Fail(key, "\"en\" or \"de\" where tokenization is \"moses\"");
    }
  }
  config.splits_hyphens = fields.Boolean("split_hyphens", false);
  const std::string bpe = fields.String("bpe", "subword_nmt");
  if (bpe != "subword_nmt" && bpe != "none") fields.Fail("bpe", "\"subword_nmt\" or \"none\"");
  config.has_bpe = bpe == "subword_nmt";
  return config;
}

// What lies beside the two networks.
absl::Status ReadRest(const std::string& where, const nlohmann::json& json,
                      std::optional<DType> dtype, EvaTranslationConfig& config) {
  JsonFields fields(json, where);
  config.dtype = ReadComputeType(fields, dtype);
  config.ties_all_embeddings = fields.Boolean("share_all_embeddings", false);
  config.ties_output =
      fields.Boolean("share_decoder_input_output_embed", config.ties_all_embeddings) ||
      config.ties_all_embeddings;
  config.text = ReadText(fields);
  return fields.status();
}

}  // namespace

absl::StatusOr<EvaTranslationConfig> ReadEvaTranslationConfig(const std::filesystem::path& file,
                                                              const nlohmann::json& json,
                                                              std::optional<DType> dtype) {
  const std::string where = file.string();
  EvaTranslationConfig config;
  if (absl::Status status = ReadRest(where, json, dtype, config); !status.ok()) return status;

  const auto encoder_json = ReadObject(where, json, "encoder", /*is_optional=*/false);
  if (!encoder_json.ok()) return encoder_json.status();
  auto encoder = ReadEvaEncoderConfig(where + ": encoder", *encoder_json, config.dtype);
  if (!encoder.ok()) return encoder.status();
  config.encoder = *std::move(encoder);

  const auto decoder_json = ReadObject(where, json, "decoder", /*is_optional=*/false);
  if (!decoder_json.ok()) return decoder_json.status();
  auto decoder = ReadDecoder(where + ": decoder", *decoder_json);
  if (!decoder.ok()) return decoder.status();
  config.decoder = *std::move(decoder);

  const auto search_json = ReadObject(where, json, "generation", /*is_optional=*/true);
  if (!search_json.ok()) return search_json.status();
  auto search = ReadSearch(where + ": generation", *search_json);
  if (!search.ok()) return search.status();
  config.search = *search;

  absl::Status status = CheckParts(config);
  if (status.ok()) return config;
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", std::string(status.message())));
}

}  // namespace evaserve
