#include "models/package/package_config.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/io/json_fields.h"
#include "models/io/json_file.h"

namespace evaserve {
namespace {

constexpr size_t kMaxTensors = 64;
constexpr size_t kMaxRank = 16;

absl::StatusOr<TensorSpec> ReadTensor(const nlohmann::json& json, const std::string& where) {
  if (!json.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, " is ", JsonExcerpt(json),
                     ", allowed is {\"name\": ..., \"datatype\": ..., \"shape\": [-1, ...]}"));
  }
  JsonFields fields(json, where);
  TensorSpec spec;
  spec.name = fields.String("name", "");
  if (spec.name.empty()) fields.Fail("name", "a name");
  const std::optional<TensorType> type = TensorTypeFromName(fields.String("datatype", ""));
  if (!type || !IsPackageType(*type)) {
    fields.Fail("datatype", "BOOL, UINT8, INT8, INT16, INT32, INT64, FP16, BF16, FP32 or FP64");
  }
  spec.type = type.value_or(TensorType::kFp32);
  spec.shape = fields.Integers("shape", {}, -1, std::numeric_limits<int32_t>::max());
  if (spec.shape.empty() || spec.shape[0] != -1 || spec.shape.size() > kMaxRank) {
    fields.Fail("shape", absl::StrCat("a list of up to ", kMaxRank, " that begins with -1"));
  }
  if (!fields.status().ok()) return fields.status();
  return spec;
}

absl::StatusOr<std::vector<TensorSpec>> ReadTensors(const nlohmann::json& config, const char* key,
                                                    const std::string& where) {
  const auto found = config.find(key);
  if (found == config.end() || !found->is_array() || found->empty() ||
      found->size() > kMaxTensors) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": \"", key, "\" is ",
                     found == config.end() ? "missing" : found->dump().substr(0, 64),
                     ", allowed is a list of 1 to ", kMaxTensors, " tensors"));
  }
  std::vector<TensorSpec> specs;
  for (size_t i = 0; i < found->size(); ++i) {
    absl::StatusOr<TensorSpec> spec =
        ReadTensor((*found)[i], absl::StrCat(where, ": ", key, "[", i, "]"));
    if (!spec.ok()) return spec.status();
    if (std::ranges::count(specs, spec->name, &TensorSpec::name) > 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": ", key, "[", i, "]: two are named \"", spec->name, "\""));
    }
    specs.push_back(*std::move(spec));
  }
  return specs;
}

}  // namespace

bool IsPackageType(TensorType type) {
  switch (type) {
    case TensorType::kUint16:
    case TensorType::kUint32:
    case TensorType::kUint64:
    case TensorType::kBytes:
      return false;
    default:
      return true;
  }
}

absl::StatusOr<PackageConfig> ReadPackageConfig(const nlohmann::json& config,
                                                const std::string& where) {
  absl::StatusOr<std::vector<TensorSpec>> inputs = ReadTensors(config, "inputs", where);
  if (!inputs.ok()) return inputs.status();
  absl::StatusOr<std::vector<TensorSpec>> outputs = ReadTensors(config, "outputs", where);
  if (!outputs.ok()) return outputs.status();
  return PackageConfig{*std::move(inputs), *std::move(outputs)};
}

}  // namespace evaserve
