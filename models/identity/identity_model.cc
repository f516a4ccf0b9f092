#include "models/identity/identity_model.h"

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "models/io/json_fields.h"
#include "models/io/json_file.h"

namespace evaserve {
namespace {

constexpr size_t kMaxInputs = 64;

class IdentityModel final : public TensorModel {
 public:
  explicit IdentityModel(TensorModelInfo info) : info_(std::move(info)) {}

  const TensorModelInfo& info() const override { return info_; }

  absl::StatusOr<std::vector<Outputs>> Run(std::span<const Inputs* const> requests) override {
    std::vector<Outputs> results;
    results.reserve(requests.size());
    for (const Inputs* inputs : requests) {
      Outputs& outputs = results.emplace_back();
      for (const InputTensor& input : *inputs) {
        outputs.push_back({input.shape, std::string(input.data)});
      }
    }
    return results;
  }

 private:
  const TensorModelInfo info_;
};

absl::StatusOr<TensorSpec> ReadInput(const nlohmann::json& json, const std::string& where) {
  if (!json.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(
        where, " is ", JsonExcerpt(json), ", allowed is {\"datatype\": ..., \"shape\": ...}"));
  }
  JsonFields fields(json, where);
  const std::optional<TensorType> type = TensorTypeFromName(fields.String("datatype", "FP32"));
  if (!type) fields.Fail("datatype", "one of the Open Inference Protocol, such as \"FP32\"");
  TensorSpec spec{.type = type.value_or(TensorType::kFp32)};
  spec.shape = fields.Integers("shape", {-1, -1}, -1, std::numeric_limits<int32_t>::max());
  if (spec.shape.empty() || spec.shape[0] != -1) fields.Fail("shape", "a list that begins with -1");
  if (!fields.status().ok()) return fields.status();
  return spec;
}

absl::StatusOr<std::vector<TensorSpec>> ReadInputs(const nlohmann::json& config,
                                                   const std::string& where) {
  const nlohmann::json one = nlohmann::json::array({nlohmann::json::object()});
  const auto found = config.find("inputs");
  const nlohmann::json& inputs = found == config.end() ? one : *found;
  if (!inputs.is_array() || inputs.empty() || inputs.size() > kMaxInputs) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": \"inputs\" is ", JsonExcerpt(inputs),
                                                   ", allowed is a list of 1 to ", kMaxInputs));
  }
  std::vector<TensorSpec> specs;
  for (size_t i = 0; i < inputs.size(); ++i) {
    absl::StatusOr<TensorSpec> spec =
        ReadInput(inputs[i], absl::StrCat(where, ": inputs[", i, "]"));
    if (!spec.ok()) return spec.status();
    spec->name = absl::StrCat("INPUT", i);
    specs.push_back(*std::move(spec));
  }
  return specs;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorModel>> LoadIdentityModel(
    const std::filesystem::path& directory, const nlohmann::json& config) {
  absl::StatusOr<std::vector<TensorSpec>> inputs =
      ReadInputs(config, (directory / "config.json").string());
  if (!inputs.ok()) return inputs.status();
  TensorModelInfo info{.architecture = "identity", .inputs = *std::move(inputs)};
  for (size_t i = 0; i < info.inputs.size(); ++i) {
    TensorSpec output = info.inputs[i];
    output.name = absl::StrCat("OUTPUT", i);
    info.outputs.push_back(std::move(output));
  }
  return std::make_unique<IdentityModel>(std::move(info));
}

}  // namespace evaserve
