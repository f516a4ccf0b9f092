#pragma once

#include <filesystem>
#include <memory>

#include "absl/status/statusor.h"
#include "models/tensor_model.h"
#include "nlohmann/json.hpp"

namespace evaserve {

// A model that gives back what it gets, for measuring a server and trying a client: input INPUTi
// becomes OUTPUTi. `config` is its config.json:
//
//   {"model_type": "identity", "inputs": [{"datatype": "FP32", "shape": [-1, 16]}]}
//
// "inputs" may be absent: one of FP32 [-1, -1] then. A shape's first number is the batch, -1.
absl::StatusOr<std::unique_ptr<TensorModel>> LoadIdentityModel(
    const std::filesystem::path& directory, const nlohmann::json& config);

}  // namespace evaserve
