#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/dtype.h"
#include "models/eva/causal_attention.h"
#include "models/tokenizer.h"
#include "nlohmann/json.hpp"

namespace evaserve {

struct EvaLmConfig {
  int vocab_size = 0;
  int padding_idx = 1;  // the first token is at position padding_idx + 1
  int size = 0;         // of a token, even and a multiple of num_heads
  int mlp_size = 0;     // of the hidden layer
  int num_heads = 0;
  int num_layers = 0;
  int max_positions = 0;  // tokens, prompt and answer together: max_target_positions
  bool has_final_norm = true;
  Activation activation = Activation::kRelu;
  float norm_eps = 1e-5f;
  float embed_scale = 1;
  // Where the bands of the vocabulary after the first begin, ascending; empty for one band and an
  // ordinary softmax.
  std::vector<int> cutoffs;
  int factor = 4;  // a band's vectors are so much shorter than those of the band before
  bool has_tied_output = true;  // the output matrix is the embedding; with cutoffs it always is
  TokenId bos_token = 0;
  std::vector<TokenId> eos_tokens;
  CausalAttentionConfig attention;
  DType dtype = DType::kFloat32;

  // The length of a band's vectors.
  int BandSize(int band) const;
};

// InvalidArgument, naming the file, the key, its value and what is allowed. `dtype` counts before
// the file's.
absl::StatusOr<EvaLmConfig> ReadEvaLmConfig(const std::filesystem::path& file,
                                            const nlohmann::json& json, std::optional<DType> dtype);

}  // namespace evaserve
