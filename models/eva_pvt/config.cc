#include "models/eva_pvt/config.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "models/io/json_fields.h"
#include "models/vision/vision_model.h"

namespace evaserve {
namespace {

constexpr int kMaxSide = 4096;
constexpr int kMaxSize = 1 << 16;

// Four numbers, one for each stage.
std::array<int, kNumPvtStages> ReadStages(JsonFields& fields, const char* key, int max) {
  std::array<int, kNumPvtStages> result;
  result.fill(1);
  const std::vector<int64_t> values = fields.Integers(key, {}, 1, max);
  if (values.size() != result.size()) {
    fields.Fail(key, absl::StrCat("a list of ", kNumPvtStages, " whole numbers from 1 to ", max));
    return result;
  }
  std::copy(values.begin(), values.end(), result.begin());
  return result;
}

void ReadAllStages(JsonFields& fields, EvaPvtConfig& config) {
  const auto sizes = ReadStages(fields, "embed_dims", kMaxSize);
  const auto heads = ReadStages(fields, "num_heads", kMaxSize);
  const auto depths = ReadStages(fields, "depths", 1024);
  const auto mlp_ratios = ReadStages(fields, "mlp_ratios", 64);
  const auto sr_ratios = ReadStages(fields, "sr_ratios", 64);
  int side = config.image_size;
  for (int i = 0; i < kNumPvtStages; ++i) {
    EvaPvtStageConfig& stage = config.stages[i];
    stage.size = sizes[i];
    stage.num_heads = heads[i];
    stage.num_layers = depths[i];
    stage.mlp_size = sizes[i] * mlp_ratios[i];
    stage.is_eva = sr_ratios[i] > 1;
    stage.kernel = i == 0 ? 7 : 3;
    stage.stride = i == 0 ? 4 : 2;
    stage.padding = stage.kernel / 2;
    stage.side = side = (side + 2 * stage.padding - stage.kernel) / stage.stride + 1;
    if (stage.size % stage.num_heads != 0) {
      fields.Fail("embed_dims", "multiples of num_heads, one by one");
    }
  }
}

absl::Status CheckStages(const EvaPvtConfig& config, const std::string& where) {
  for (int i = 0; i < kNumPvtStages; ++i) {
    const EvaPvtStageConfig& stage = config.stages[i];
    absl::Status status = ValidateHeads(stage.num_heads, stage.size / stage.num_heads);
    if (status.ok() && !config.attention.is_2d) {
      status = absl::InvalidArgumentError("attn_2d is false, allowed is true");
    }
    if (status.ok() && stage.is_eva) {
      status = Validate(config.attention.RegionsOf(stage.side, stage.side));
    }
    if (status.ok()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": attn: stage ", i + 1, ": ", std::string(status.message())));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<EvaPvtConfig> ReadEvaPvtConfig(const std::filesystem::path& file,
                                              const nlohmann::json& json,
                                              std::optional<DType> dtype) {
  JsonFields fields(json, file.string());
  EvaPvtConfig config;
  config.image_size = static_cast<int>(fields.Integer("input_size", {}, 32, kMaxSide));
  config.num_classes = static_cast<int>(fields.Integer("num_classes", {}, 1, 1 << 20));
  if (fields.Integer("in_chans", 3, 1, kMaxSize) != 3) fields.Fail("in_chans", "3");
  ReadAllStages(fields, config);
  config.has_qkv_bias = fields.Boolean("qkv_bias", true);
  config.norm_eps = static_cast<float>(fields.Number("layer_norm_eps", 1e-6, 0, 1));
  config.patch_norm_eps =
      static_cast<float>(fields.Number("patch_embed_layer_norm_eps", 1e-5, 0, 1));
  config.dtype = ReadComputeType(fields, dtype);
  if (!fields.Has("attn")) fields.Fail("attn", "an object");
  if (!fields.status().ok()) return fields.status();
  absl::StatusOr<EvaAttentionConfig> attention =
      ReadEvaAttentionConfig(json["attn"], absl::StrCat(file.string(), ": attn"));
  if (!attention.ok()) return attention.status();
  config.attention = *attention;
  if (absl::Status status = CheckStages(config, file.string()); !status.ok()) return status;
  absl::StatusOr<std::vector<std::string>> labels =
      ReadLabels(json, config.num_classes, file.string());
  if (!labels.ok()) return labels.status();
  config.labels = *std::move(labels);
  return config;
}

}  // namespace evaserve
