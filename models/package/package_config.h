#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/tensor.h"
#include "nlohmann/json.hpp"

namespace evaserve {

// Whether element types of tensors are those of a package too.
bool IsPackageType(TensorType type);

// What the config.json of a package declares: what its program takes and gives, in the order of its
// arguments and results. The first dimension is the batch, -1.
//
//   {"model_type": "torchscript",
//    "inputs": [{"name": "pixel_values", "datatype": "FP32", "shape": [-1, 3, 32, 32]}],
//    "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}]}
struct PackageConfig {
  std::vector<TensorSpec> inputs;   // 1 to 64
  std::vector<TensorSpec> outputs;  // likewise
};

// InvalidArgument, naming `where` and the key, for what is missing, malformed or told twice.
absl::StatusOr<PackageConfig> ReadPackageConfig(const nlohmann::json& config,
                                                const std::string& where);

}  // namespace evaserve
