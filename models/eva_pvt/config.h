#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/dtype.h"
#include "models/eva/attention.h"
#include "nlohmann/json.hpp"

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

struct EvaPvtConfig {
  int image_size = 0;
  std::array<EvaPvtStageConfig, kNumPvtStages> stages;
  bool has_qkv_bias = true;
  int num_classes = 0;
  float norm_eps = 1e-6f;
  float patch_norm_eps = 1e-5f;
  EvaAttentionConfig attention;
  DType dtype = DType::kFloat32;
  std::vector<std::string> labels;

  int feature_size() const { return stages.back().size; }
};

// InvalidArgument, naming the file and the key. `dtype` counts before the file's.
absl::StatusOr<EvaPvtConfig> ReadEvaPvtConfig(const std::filesystem::path& file,
                                              const nlohmann::json& json,
                                              std::optional<DType> dtype);

}  // namespace evaserve
