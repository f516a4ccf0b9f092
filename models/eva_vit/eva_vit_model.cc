#include "models/eva_vit/eva_vit_model.h"

#include <utility>

#include "models/eva_vit/network.h"

namespace evaserve {

absl::StatusOr<std::unique_ptr<TensorModel>> LoadEvaVitModel(const std::filesystem::path& directory,
                                                             const nlohmann::json& json,
                                                             const LoadOptions& options,
                                                             WorkerPool& workers) {
  const absl::StatusOr<EvaVitConfig> config =
      ReadEvaVitConfig(directory / "config.json", json, options.dtype);
  if (!config.ok()) return config.status();
  return LoadVisionModel(
      directory, "eva_vit", *config, options.device, workers,
      [&](TensorReader& reader) -> absl::StatusOr<std::unique_ptr<ImageNetwork>> {
        absl::StatusOr<EvaVitWeights> weights = ReadEvaVitWeights(reader, *config);
        if (!weights.ok()) return weights.status();
        return std::make_unique<EvaVitNetwork>(*config, *std::move(weights), workers);
      });
}

}  // namespace evaserve
