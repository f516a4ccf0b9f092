#include "models/eva_pvt/eva_pvt_model.h"

#include <utility>

#include "models/eva_pvt/network.h"

namespace evaserve {

absl::StatusOr<std::unique_ptr<TensorModel>> LoadEvaPvtModel(const std::filesystem::path& directory,
                                                             const nlohmann::json& json,
                                                             const LoadOptions& options,
                                                             WorkerPool& workers) {
  const absl::StatusOr<EvaPvtConfig> config =
      ReadEvaPvtConfig(directory / "config.json", json, options.dtype);
  if (!config.ok()) return config.status();
  return LoadVisionModel(
      directory, "eva_pvt_v2", *config, options.device, workers,
      [&](TensorReader& reader) -> absl::StatusOr<std::unique_ptr<ImageNetwork>> {
        absl::StatusOr<EvaPvtWeights> weights = ReadEvaPvtWeights(reader, *config);
        if (!weights.ok()) return weights.status();
        return std::make_unique<EvaPvtNetwork>(*config, *std::move(weights), workers);
      });
}

}  // namespace evaserve
