#include "models/eva_vit/config.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "models/io/json_fields.h"

namespace evaserve {
namespace {

constexpr int kMaxSize = 1 << 16;
constexpr int kMaxLayers = 1024;

void ReadSizes(JsonFields& fields, EvaVitConfig& config) {
  const auto integer = [&](const char* key, int64_t max) {
    return static_cast<int>(fields.Integer(key, {}, 1, max));
  };
  config.patch_size = integer("patch_size", config.image_size);
  config.size = integer("embed_dim", kMaxSize);
  config.num_heads = integer("num_heads", kMaxSize);
  config.num_layers = integer("depth", kMaxLayers);
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
  if (config.mlp_size < 1) {
    fields.Fail("mlp_ratio",
                absl::StrCat("enough for one hidden feature of embed_dim ", config.size));
  }
  if (fields.String("hidden_act", "gelu") != "gelu") fields.Fail("hidden_act", "\"gelu\"");
}

}  // namespace

absl::StatusOr<EvaVitConfig> ReadEvaVitConfig(const std::filesystem::path& file,
                                              const nlohmann::json& json,
                                              std::optional<DType> dtype) {
  absl::StatusOr<VisionConfig> common = ReadVisionConfig(file, json, dtype);
  if (!common.ok()) return common.status();
  EvaVitConfig config{*std::move(common)};
  JsonFields fields(json, file.string());
  ReadSizes(fields, config);
  ReadMlp(fields, config);
  if (!fields.status().ok()) return fields.status();
  absl::Status status = CheckMap(config,
                                 {.side = config.side(),
                                  .size = config.size,
                                  .num_heads = config.num_heads,
                                  .num_layers = config.num_layers},
                                 file.string());
  if (!status.ok()) return status;
  return config;
}

}  // namespace evaserve
