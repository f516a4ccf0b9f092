#pragma once

#include <filesystem>
#include <memory>

#include "absl/status/statusor.h"
#include "models/tensor_model.h"
#include "nlohmann/json.hpp"

namespace evaserve {

// PVTv2 with EVA attention ("model_type": "eva_pvt_v2"): four stages, each a map of half the side
// of the one before. EVA where the original shrinks keys and values (sr_ratio above 1), softmax
// attention in the last stage. PVTv2-B3 is a size of it. A VisionModel.
//
// `config` is the directory's config.json:
//
//   {"model_type": "eva_pvt_v2", "input_size": 224, "in_chans": 3, "embed_dims": [64, 128, 320,
//    512], "num_heads": [2, 4, 10, 16], "depths": [3, 4, 18, 3], "mlp_ratios": [8, 8, 4, 4],
//    "sr_ratios": [8, 4, 2, 1], "qkv_bias": true, "num_classes": 1000, "layer_norm_eps": 1e-6,
//    "patch_embed_layer_norm_eps": 1e-5, "attn": {...}, "id2label": {...}}
//
// Errors are LoadModel()'s.
//
// Source: "Efficient Attention via Control Variates" (arXiv 2302.04542), section 5.2, in the form
// of its published code; "PVT v2" (arXiv 2106.13797).
absl::StatusOr<std::unique_ptr<TensorModel>> LoadEvaPvtModel(const std::filesystem::path& directory,
                                                             const nlohmann::json& config,
                                                             const LoadOptions& options,
                                                             WorkerPool& workers);

}  // namespace evaserve
