#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/dtype.h"
#include "models/eva/attention.h"
#include "nlohmann/json.hpp"

namespace evaserve {

// What the config.json of every classifier of images with 2-D EVA attention says.
struct VisionConfig {
  int image_size = 0;  // pixels of a side
  int num_classes = 0;
  bool has_qkv_bias = true;
  float norm_eps = 1e-6f;
  EvaAttentionConfig attention;
  DType dtype = DType::kFloat32;
  std::vector<std::string> labels;  // [num_classes], or none
};

// InvalidArgument, naming the file and the key. `dtype` counts before the file's.
absl::StatusOr<VisionConfig> ReadVisionConfig(const std::filesystem::path& file,
                                              const nlohmann::json& json,
                                              std::optional<DType> dtype);

// Layers of one size, and the map that they see.
struct MapLayers {
  int side = 0;  // tokens along a side of the map
  int size = 0;  // of a token
  int num_heads = 0;
  int num_layers = 0;
  bool is_eva = true;
};

// Whether such maps have windows and chunks, the kernels such heads, and memory the biases; else
// InvalidArgument, beginning with `where`. Layers without EVA need the heads alone.
absl::Status CheckMap(const VisionConfig& config, const MapLayers& layers,
                      const std::string& where);

}  // namespace evaserve
