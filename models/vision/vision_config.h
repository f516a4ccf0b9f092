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

// Whether maps of side x side tokens have windows and chunks, and the kernels such heads; else
// InvalidArgument, beginning with `where`. A map without EVA needs the heads alone.
absl::Status CheckMap(const VisionConfig& config, int side, int num_heads, int size, bool is_eva,
                      const std::string& where);

}  // namespace evaserve
