#include <utility>

#include "absl/strings/str_cat.h"
#include "models/evabyte/cpu_backend.h"
#include "models/evabyte/evabyte_model.h"
#if defined(EVASERVE_CUDA)
#include "models/evabyte/cuda_backend.h"
#endif

namespace evaserve {
namespace {

using Backend = absl::StatusOr<std::unique_ptr<EvaByteBackend>>;

Backend MakeCpuBackend(const EvaByteConfig& config, EvaByteTensors tensors,
                       const LoadOptions& options, WorkerPool& workers) {
  absl::StatusOr<std::unique_ptr<PagePool>> pages =
      PagePool::Create({.layout = {config.dtype, config.num_heads, config.head_dim()},
                        .num_layers = config.num_layers,
                        .state_bytes = options.state_bytes});
  if (!pages.ok()) return pages.status();
  return std::make_unique<EvaByteCpu>(config, PackEvaByteWeights(std::move(tensors), config.dtype),
                                      *std::move(pages), workers);
}

Backend MakeCudaBackend(const EvaByteConfig& config, const EvaByteTensors& tensors,
                        const LoadOptions& options) {
#if defined(EVASERVE_CUDA)
  absl::StatusOr<std::unique_ptr<Gpu>> gpu = Gpu::Open(options.device.index);
  if (!gpu.ok()) return gpu.status();
  return EvaByteCuda::Create(config, tensors, options.state_bytes, *std::move(gpu));
#else
  return absl::UnimplementedError(
      absl::StrCat("device is ", Name(options.device), "; this build runs models on the CPU only"));
#endif
}

// Whether the model can run on the CPU instead, where the user has left the choice to us.
bool IsNotForADevice(const absl::Status& status) {
  return absl::IsNotFound(status) || absl::IsInvalidArgument(status) ||
         absl::IsUnimplemented(status);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> LoadEvaByteModel(const std::filesystem::path& directory,
                                                        const nlohmann::json& json,
                                                        const LoadOptions& options,
                                                        WorkerPool& workers) {
  const auto make_backend = [&](const EvaByteConfig& config, EvaByteTensors tensors) -> Backend {
    const Device::Kind kind = options.device.kind;
    if (kind != Device::Kind::kCpu) {
      Backend backend = MakeCudaBackend(config, tensors, options);
      if (kind == Device::Kind::kCuda || !IsNotForADevice(backend.status())) return backend;
    }
    return MakeCpuBackend(config, std::move(tensors), options, workers);
  };
  return LoadEvaByteModel(directory, json, options, make_backend);
}

}  // namespace evaserve
