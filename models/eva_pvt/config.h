#pragma once

#include <array>

#include "models/vision/vision_config.h"

namespace evaserve {

struct EvaPvtStageConfig {
  int size = 0;  // of a token, a multiple of num_heads
  int num_heads = 0;
  int num_layers = 0;
  int mlp_size = 0;
  bool is_eva = true;  // else softmax over the whole map
  int side = 0;        // tokens along a side of the map
  // Of the convolution that makes this map from the one before.
  int kernel = 0, stride = 0, padding = 0;
};

inline constexpr int kNumPvtStages = 4;

struct EvaPvtConfig : VisionConfig {
  std::array<EvaPvtStageConfig, kNumPvtStages> stages;
  float patch_norm_eps = 1e-5f;

  int feature_size() const { return stages.back().size; }
};

// InvalidArgument, naming the file and the key. `dtype` counts before the file's.
absl::StatusOr<EvaPvtConfig> ReadEvaPvtConfig(const std::filesystem::path& file,
                                              const nlohmann::json& json,
                                              std::optional<DType> dtype);

}  // namespace evaserve
