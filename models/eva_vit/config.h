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

struct EvaVitConfig {
  int image_size = 0;  // pixels of a side, a multiple of patch_size
  int patch_size = 0;
  int size = 0;  // of a token, a multiple of num_heads
  int num_heads = 0;
  int num_layers = 0;
  int mlp_size = 0;  // of the hidden layer, before the gate if there is one
  bool is_gated = false;
  bool has_qkv_bias = true;
  int num_classes = 0;
  float norm_eps = 1e-6f;
  EvaAttentionConfig attention;
  DType dtype = DType::kFloat32;
  std::vector<std::string> labels;

  int side() const { return image_size / patch_size; }  // tokens
  int num_tokens() const { return side() * side(); }
};

// InvalidArgument, naming the file and the key. `dtype` counts before the file's.
absl::StatusOr<EvaVitConfig> ReadEvaVitConfig(const std::filesystem::path& file,
                                              const nlohmann::json& json,
                                              std::optional<DType> dtype);

}  // namespace evaserve
