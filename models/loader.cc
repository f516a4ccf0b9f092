#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "models/eva_encoder/eva_encoder_model.h"
#include "models/eva_lm/eva_lm_model.h"
#include "models/eva_pvt/eva_pvt_model.h"
#include "models/eva_translation/eva_translation_model.h"
#include "models/eva_vit/eva_vit_model.h"
#include "models/evabyte/evabyte_model.h"
#include "models/identity/identity_model.h"
#include "models/io/json_file.h"
#include "models/model.h"
#include "models/package/package_model.h"
#include "models/tensor_model.h"
#include "nlohmann/json.hpp"

namespace evaserve {
namespace {

using Loader = absl::StatusOr<AnyModel> (*)(const std::filesystem::path&, const nlohmann::json&,
                                            const LoadOptions&, WorkerPool&);

struct Architecture {
  std::string_view model_type;  // in config.json
  Loader load;
};

absl::StatusOr<AnyModel> LoadPackage(const std::filesystem::path& directory,
                                     const nlohmann::json& config, const LoadOptions& options,
                                     WorkerPool& pool) {
  return LoadPackageModel(directory, config, options, pool);
}

// A new architecture is a folder and a line here.
constexpr Architecture kArchitectures[] = {
    {"aot_inductor", LoadPackage},
    {"evabyte",
     [](const std::filesystem::path& directory, const nlohmann::json& config,
        const LoadOptions& options, WorkerPool& pool) -> absl::StatusOr<AnyModel> {
       return LoadEvaByteModel(directory, config, options, pool);
     }},
    {"eva_causal_lm",
     [](const std::filesystem::path& directory, const nlohmann::json& config,
        const LoadOptions& options, WorkerPool& pool) -> absl::StatusOr<AnyModel> {
       return LoadEvaLmModel(directory, config, options, pool);
     }},
    {"eva_encoder",
     [](const std::filesystem::path& directory, const nlohmann::json& config,
        const LoadOptions& options, WorkerPool& pool) -> absl::StatusOr<AnyModel> {
       return LoadEvaEncoderModel(directory, config, options, pool);
     }},
    {"eva_pvt_v2",
     [](const std::filesystem::path& directory, const nlohmann::json& config,
        const LoadOptions& options, WorkerPool& pool) -> absl::StatusOr<AnyModel> {
       return LoadEvaPvtModel(directory, config, options, pool);
     }},
    {"eva_translation",
     [](const std::filesystem::path& directory, const nlohmann::json& config,
        const LoadOptions& options, WorkerPool& pool) -> absl::StatusOr<AnyModel> {
       return LoadEvaTranslationModel(directory, config, options, pool);
     }},
    {"eva_vit",
     [](const std::filesystem::path& directory, const nlohmann::json& config,
        const LoadOptions& options, WorkerPool& pool) -> absl::StatusOr<AnyModel> {
       return LoadEvaVitModel(directory, config, options, pool);
     }},
    {"identity",
     [](const std::filesystem::path& directory, const nlohmann::json& config, const LoadOptions&,
        WorkerPool&) -> absl::StatusOr<AnyModel> { return LoadIdentityModel(directory, config); }},
    {"torchscript", LoadPackage},
};

// The other models know themselves how requests of different lengths go together.
absl::Status CheckRaggedIsForPackages(const Architecture& architecture, const LoadOptions& options,
                                      const std::filesystem::path& directory) {
  if (options.packages.ragged.empty() || architecture.load == LoadPackage) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat((directory / "serving.json").string(),
                                                 ": \"ragged\" is for packages, not for ",
                                                 std::string(architecture.model_type)));
}

}  // namespace

absl::StatusOr<AnyModel> LoadAnyModel(const std::filesystem::path& directory,
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
      absl::Status status = CheckRaggedIsForPackages(architecture, options, directory);
      if (!status.ok()) return status;
      return architecture.load(directory, *config, options, pool);
    }
    absl::StrAppend(&known, " ", std::string(architecture.model_type));
  }
  return absl::UnimplementedError(
      absl::StrCat(path.string(), ": \"model_type\" is \"", name, "\"; known:", known));
}

absl::StatusOr<std::unique_ptr<Model>> LoadModel(const std::filesystem::path& directory,
                                                 const LoadOptions& options, WorkerPool& pool) {
  absl::StatusOr<AnyModel> model = LoadAnyModel(directory, options, pool);
  if (!model.ok()) return model.status();
  if (auto* sequences = std::get_if<std::unique_ptr<Model>>(&*model)) return std::move(*sequences);
  return absl::InvalidArgumentError(
      absl::StrCat(directory.string(), ": the model takes tensors, not sequences of tokens"));
}

}  // namespace evaserve
