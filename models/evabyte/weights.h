#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/linear.h"
#include "models/evabyte/config.h"
#include "models/io/checkpoint.h"

namespace evaserve {

struct EvaByteLayer {
  std::vector<float> attention_norm, mlp_norm;  // [hidden_size], the unit offset added
  std::vector<float> mu, phi;                   // [num_heads, head_dim]
  PackedWeight qkv;                             // [3 * hidden_size, hidden_size]
  PackedWeight out;                             // [hidden_size, hidden_size]
  PackedWeight gate_up;                         // [2 * intermediate_size, hidden_size]
  PackedWeight down;                            // [hidden_size, intermediate_size]
};

// Matrices are rounded to the model's type. Embeddings and vectors stay float32, exactly as the
// file has them: they are small, and in particular `1 + weight` of a norm would lose most of its
// weight's digits.
struct EvaByteWeights {
  std::vector<float> embedding;  // [vocab_size, hidden_size]
  std::vector<EvaByteLayer> layers;
  std::vector<float> final_norm;  // [hidden_size], the unit offset added
  PackedWeight lm_head;           // [num_pred_heads * vocab_size, hidden_size]

  int64_t num_parameters = 0;
  int64_t bytes = 0;  // in memory
};

// Copies the weights out of `checkpoint`, which is not needed afterwards. InvalidArgument, naming
// the file and the tensor, for one that is missing, has another shape than `config` says or a type
// that we do not read, or that belongs to a layer that `config` does not have. Tensors with unknown
// names are ignored, as the official code does.
absl::StatusOr<EvaByteWeights> LoadEvaByteWeights(const Checkpoint& checkpoint,
                                                  const EvaByteConfig& config, DType dtype);

}  // namespace evaserve
