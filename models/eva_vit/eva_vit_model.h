#pragma once

#include <filesystem>
#include <memory>

#include "absl/status/statusor.h"
#include "models/tensor_model.h"
#include "nlohmann/json.hpp"

namespace evaserve {

// EVA-ViT, the paper's DeiT with 2-D EVA attention ("model_type": "eva_vit"): no class token,
// patches stay a map, the mean over the map is classified. DeiT-tiny/8, DeiT-tiny/16 and
// DeiT-small/16 are sizes of it. A VisionModel.
//
// `config` is the directory's config.json:
//
//   {"model_type": "eva_vit", "input_size": 224, "patch_size": 8, "in_chans": 3, "embed_dim": 192,
//    "num_heads": 3, "depth": 12, "mlp_ratio": 4, "use_glu": false, "qkv_bias": true,
//    "num_classes": 1000, "layer_norm_eps": 1e-6, "attn": {"window_size": 7, "num_landmarks": 49,
//    "adaptive_proj": "default", "attn_2d": true, "use_rpe": true, "use_t5_rpe": false,
//    "overlap_window": false}, "id2label": {"0": "tench", ...}, "torch_dtype": "float32"}
//
// Errors are LoadModel()'s.
//
// Source: "Efficient Attention via Control Variates" (arXiv 2302.04542), section 5.2, in the form
// of its published code.
absl::StatusOr<std::unique_ptr<TensorModel>> LoadEvaVitModel(const std::filesystem::path& directory,
                                                             const nlohmann::json& config,
                                                             const LoadOptions& options,
                                                             WorkerPool& workers);

}  // namespace evaserve
