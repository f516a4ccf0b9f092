#include "models/eva_vit/config.h"

#include "absl/strings/str_cat.h"
#include "models/io/json_fields.h"
#include "models/vision/vision_model.h"

namespace evaserve {
namespace {

constexpr int kMaxSide = 4096;
constexpr int kMaxSize = 1 << 16;
constexpr int kColors = 3;

void ReadSizes(JsonFields& fields, EvaVitConfig& config) {
  const auto integer = [&](const char* key, std::optional<int64_t> fallback, int64_t max) {
    return static_cast<int>(fields.Integer(key, fallback, 1, max));
  };
  config.image_size = integer("input_size", {}, kMaxSide);
  config.patch_size = integer("patch_size", {}, kMaxSide);
  config.size = integer("embed_dim", {}, kMaxSize);
  config.num_heads = integer("num_heads", {}, kMaxSize);
  config.num_layers = integer("depth", {}, 1024);
  config.num_classes = integer("num_classes", {}, 1 << 20);
  if (integer("in_chans", kColors, kMaxSize) != kColors) fields.Fail("in_chans", "3");
  if (config.image_size % config.patch_size != 0) {
    fields.Fail("input_size", absl::StrCat("a multiple of patch_size, ", config.patch_size));
  }
  if (config.size % config.num_heads != 0) {
    fields.Fail("embed_dim", absl::StrCat("a multiple of num_heads, ", config.num_heads));
  }
}

void ReadMlp(JsonFields& fields, EvaVitConfig& config) {
  const double ratio = fields.Number("mlp_ratio", 4, 0.01, 64);
  config.is_gated = fields.Boolean("use_glu", false);
  const int size = static_cast<int>(config.size * ratio);
  config.mlp_size = config.is_gated ? size * 2 / 3 : size;
  if (fields.String("hidden_act", "gelu") != "gelu") fields.Fail("hidden_act", "\"gelu\"");
}

// Whether windows and chunks fit the map, and the kernels the heads.
absl::Status CheckAttention(const EvaVitConfig& config, const std::string& where) {
  absl::Status status = config.attention.is_2d
                            ? absl::OkStatus()
                            : absl::InvalidArgumentError("attn_2d is false, allowed is true");
  if (status.ok()) {
    status = Validate(config.attention.RegionsOf(config.side(), config.side()));
  }
  if (status.ok()) status = ValidateHeads(config.num_heads, config.size / config.num_heads);
  if (status.ok()) return status;
  return absl::InvalidArgumentError(absl::StrCat(where, ": attn: ", std::string(status.message())));
}

}  // namespace

absl::StatusOr<EvaVitConfig> ReadEvaVitConfig(const std::filesystem::path& file,
                                              const nlohmann::json& json,
                                              std::optional<DType> dtype) {
  JsonFields fields(json, file.string());
  EvaVitConfig config;
  ReadSizes(fields, config);
  ReadMlp(fields, config);
  config.has_qkv_bias = fields.Boolean("qkv_bias", true);
  config.norm_eps = static_cast<float>(fields.Number("layer_norm_eps", 1e-6, 0, 1));
  config.dtype = ReadComputeType(fields, dtype);
  if (!fields.Has("attn")) fields.Fail("attn", "an object");
  if (!fields.status().ok()) return fields.status();
  absl::StatusOr<EvaAttentionConfig> attention =
      ReadEvaAttentionConfig(json["attn"], absl::StrCat(file.string(), ": attn"));
  if (!attention.ok()) return attention.status();
  config.attention = *attention;
  if (absl::Status status = CheckAttention(config, file.string()); !status.ok()) return status;
  absl::StatusOr<std::vector<std::string>> labels =
      ReadLabels(json, config.num_classes, file.string());
  if (!labels.ok()) return labels.status();
  config.labels = *std::move(labels);
  return config;
}

}  // namespace evaserve
