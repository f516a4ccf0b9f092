#include "models/vision/vision_config.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "models/io/json_fields.h"
#include "models/vision/image.h"

namespace evaserve {
namespace {

constexpr int kMaxSide = 4096;
constexpr int kMaxClasses = 1 << 20;

// "id2label": {"0": "cat", ...} with a label for each class, or absent.
absl::StatusOr<std::vector<std::string>> ReadLabels(const nlohmann::json& config, int num_classes,
                                                    const std::string& where) {
  const auto found = config.find("id2label");
  if (found == config.end() || found->is_null()) return std::vector<std::string>();
  std::vector<std::string> labels(num_classes);
  bool fits = found->is_object() && found->size() == labels.size();
  for (auto it = found->begin(); fits && it != found->end(); ++it) {
    int id = -1;
    fits = absl::SimpleAtoi(it.key(), &id) && id >= 0 && id < num_classes &&
           it.key() == std::to_string(id) && it->is_string();
    if (fits) labels[id] = it->get<std::string>();
  }
  if (fits) return labels;
  return absl::InvalidArgumentError(absl::StrCat(
      where, ": \"id2label\" is ", found->dump().substr(0, 64),
      "; allowed: an object with a label for each id from \"0\" to \"", num_classes - 1, "\""));
}

}  // namespace

absl::StatusOr<VisionConfig> ReadVisionConfig(const std::filesystem::path& file,
                                              const nlohmann::json& json,
                                              std::optional<DType> dtype) {
  JsonFields fields(json, file.string());
  VisionConfig config;
  config.image_size = static_cast<int>(fields.Integer("input_size", {}, 1, kMaxSide));
  config.num_classes = static_cast<int>(fields.Integer("num_classes", {}, 1, kMaxClasses));
  const int64_t channels = fields.Integer("in_chans", kImageChannels, 1, kMaxSide);
  if (channels != kImageChannels) fields.Fail("in_chans", absl::StrCat(kImageChannels));
  config.has_qkv_bias = fields.Boolean("qkv_bias", true);
  config.norm_eps = static_cast<float>(fields.Number("layer_norm_eps", 1e-6, 0, 1));
  config.dtype = ReadComputeType(fields, dtype);
  if (!fields.Has("attn")) fields.Fail("attn", "an object");
  if (!fields.status().ok()) return fields.status();
  absl::StatusOr<EvaAttentionConfig> attention =
      ReadEvaAttentionConfig(json["attn"], absl::StrCat(file.string(), ": attn"));
  if (!attention.ok()) return attention.status();
  config.attention = *attention;
  if (!config.attention.is_2d) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.string(), ": attn: \"attn_2d\" is false; allowed: true"));
  }
  absl::StatusOr<std::vector<std::string>> labels =
      ReadLabels(json, config.num_classes, file.string());
  if (!labels.ok()) return labels.status();
  config.labels = *std::move(labels);
  return config;
}

absl::Status CheckMap(const VisionConfig& config, const MapLayers& layers,
                      const std::string& where) {
  absl::Status status = ValidateHeads(layers.num_heads, layers.size / layers.num_heads);
  if (layers.is_eva) {
    status.Update(Validate(config.attention.RegionsOf(layers.side, layers.side)));
    status.Update(CheckBiases(config.attention, layers.num_heads, layers.num_layers));
  }
  if (status.ok()) return status;
  return absl::InvalidArgumentError(absl::StrCat(where, ": attn: ", std::string(status.message())));
}

}  // namespace evaserve
