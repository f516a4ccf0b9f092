#include "models/eva_pvt/config.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/io/json_fields.h"

namespace evaserve {
namespace {

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
    absl::Status status = CheckMap(config,
                                   {.side = stage.side,
                                    .size = stage.size,
                                    .num_heads = stage.num_heads,
                                    .num_layers = stage.num_layers,
                                    .is_eva = stage.is_eva},
                                   absl::StrCat(where, ": stage ", i + 1));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<EvaPvtConfig> ReadEvaPvtConfig(const std::filesystem::path& file,
                                              const nlohmann::json& json,
                                              std::optional<DType> dtype) {
  absl::StatusOr<VisionConfig> common = ReadVisionConfig(file, json, dtype);
  if (!common.ok()) return common.status();
  EvaPvtConfig config{*std::move(common)};
  JsonFields fields(json, file.string());
  ReadAllStages(fields, config);
  config.patch_norm_eps =
      static_cast<float>(fields.Number("patch_embed_layer_norm_eps", 1e-5, 0, 1));
  if (!fields.status().ok()) return fields.status();
  if (absl::Status status = CheckStages(config, file.string()); !status.ok()) return status;
  return config;
}

}  // namespace evaserve
