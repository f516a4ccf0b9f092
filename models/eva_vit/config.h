#pragma once

#include "models/vision/vision_config.h"

namespace evaserve {

struct EvaVitConfig : VisionConfig {
  int patch_size = 0;  // pixels of a side; divides image_size
  int size = 0;        // of a token, a multiple of num_heads
  int num_heads = 0;
  int num_layers = 0;
  int mlp_size = 0;  // of the hidden layer, before the gate if there is one
  bool is_gated = false;

  int side() const { return image_size / patch_size; }  // tokens
  int num_tokens() const { return side() * side(); }
};

// InvalidArgument, naming the file and the key. `dtype` counts before the file's.
absl::StatusOr<EvaVitConfig> ReadEvaVitConfig(const std::filesystem::path& file,
                                              const nlohmann::json& json,
                                              std::optional<DType> dtype);

}  // namespace evaserve
