#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "absl/status/statusor.h"
#include "kernels/dtype.h"
#include "models/eva/attention.h"
#include "nlohmann/json.hpp"

namespace evaserve {

struct EvaEncoderConfig {
  int vocab_size = 0;
  int padding_idx =
      1;             // an id that rows never have; the first token is at position padding_idx + 1
  int size = 0;      // of a token, a multiple of num_heads
  int mlp_size = 0;  // of the hidden layer
  int num_heads = 0;
  int num_layers = 0;
  int max_tokens = 0;  // of a row: max_source_positions
  bool normalizes_before = false;
  Activation activation = Activation::kRelu;
  float norm_eps = 1e-5f;
  float embed_scale = 1;
  bool has_learned_positions = false;
  bool has_embedding_norm = false;
  bool has_masked_lm_head = false;
  std::optional<int32_t> mask_token;  // what stands for a hidden token, if the config says it
  bool has_bpe = false;               // of text: the dictionary's words are byte pairs
  EvaAttentionConfig attention;
  DType dtype = DType::kFloat32;

  // The least tokens of a row: padded to whole windows, they are enough for the landmarks.
  int min_tokens() const;
  RegionShape RegionsOf(int num_tokens) const { return attention.RegionsOf(1, num_tokens); }
};

// InvalidArgument, naming the file and the key. `dtype` counts before the file's.
absl::StatusOr<EvaEncoderConfig> ReadEvaEncoderConfig(const std::filesystem::path& file,
                                                      const nlohmann::json& json,
                                                      std::optional<DType> dtype);

}  // namespace evaserve
