#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "models/evabyte/evabyte_model.h"
#include "models/io/json_file.h"
#include "models/model.h"
#include "nlohmann/json.hpp"

namespace evaserve {
namespace {

using Loader = absl::StatusOr<std::unique_ptr<Model>> (*)(const std::filesystem::path&,
                                                          const nlohmann::json&, const LoadOptions&,
                                                          WorkerPool&);

struct Architecture {
  std::string_view model_type;  // in config.json
  Loader load;
};

// A new architecture is a folder and a line here.
constexpr Architecture kArchitectures[] = {
    {"evabyte", LoadEvaByteModel},
};

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> LoadModel(const std::filesystem::path& directory,
                                                 const LoadOptions& options, WorkerPool& pool) {
  const std::filesystem::path path = directory / "config.json";
  const absl::StatusOr<nlohmann::json> config = ReadJsonObject(path);
  if (!config.ok()) return config.status();
  const auto model_type = config->find("model_type");
  if (model_type == config->end() || !model_type->is_string()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": no \"model_type\", the name of an architecture"));
  }
  const auto name = model_type->get<std::string>();
  std::string known;
  for (const Architecture& architecture : kArchitectures) {
    if (name == architecture.model_type) {
      return architecture.load(directory, *config, options, pool);
    }
    absl::StrAppend(&known, " ", std::string(architecture.model_type));
  }
  return absl::UnimplementedError(
      absl::StrCat(path.string(), ": \"model_type\" is \"", name, "\"; known:", known));
}

}  // namespace evaserve
