#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/dtype.h"
#include "kernels/rope_table.h"
#include "models/tokenizer.h"
#include "nlohmann/json.hpp"

namespace evaserve {

// What config.json says of an EvaByte model. The defaults are those of the published class.
struct EvaByteConfig {
  int vocab_size = 320;
  int hidden_size = 0;
  int intermediate_size = 0;
  int num_layers = 0;
  int num_heads = 0;
  int num_pred_heads = 1;
  int window = 512;          // tokens, a multiple of chunk
  int chunk = 256;           // tokens
  int max_positions = 2048;  // tokens, prompt and answer together
  float rms_norm_eps = 1e-6f;
  bool norm_unit_offset = false;  // norms multiply by 1 + weight
  float rope_theta = 10000.f;
  RopeScaling rope_scaling = RopeScaling::kNone;
  float rope_factor = 1.f;
  DType dtype = DType::kFloat32;  // torch_dtype
  std::vector<TokenId> eos_tokens = {2};

  int head_dim() const { return hidden_size / num_heads; }
};

// Reads `json`, the contents of config.json in `directory`. InvalidArgument, naming the file, the
// key, its value and what is allowed, for a key that is missing, of the wrong type or out of range,
// and for a switch that asks for another function than the published models compute.
absl::StatusOr<EvaByteConfig> ParseEvaByteConfig(const nlohmann::json& json,
                                                 const std::filesystem::path& directory);

}  // namespace evaserve
