#pragma once

#include <filesystem>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/worker_pool.h"
#include "models/model.h"
#include "models/package/joined_batch.h"
#include "models/package/tensor_program.h"
#include "models/tensor_model.h"
#include "nlohmann/json.hpp"

namespace evaserve {

// A program of somebody else's as a model: requests of a batch are joined as `plan` says, those
// whose shapes differ go in calls of their own, and outputs are held against the declaration.
std::unique_ptr<TensorModel> MakePackageModel(TensorModelInfo info, JoinPlan plan,
                                              std::unique_ptr<TensorProgram> program);

// A model directory with a TorchScript file, model.pt, or an AOTInductor package, model.pt2, as
// "model_type" in `config`, its config.json, says: `torchscript`, `aot_inductor`. They run on the
// CPU, on as many threads as `pool` has.
//
// A package is a program, so `options` must allow it: PermissionDenied otherwise. Other errors:
// NotFound without the file; InvalidArgument for a bad declaration or file; FailedPrecondition
// without LibTorch (torch_library.h).
absl::StatusOr<std::unique_ptr<TensorModel>> LoadPackageModel(
    const std::filesystem::path& directory, const nlohmann::json& config,
    const LoadOptions& options, const WorkerPool& pool);

}  // namespace evaserve
