#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/linear.h"
#include "models/evabyte/config.h"
#include "models/io/checkpoint.h"

namespace evaserve {

// Matrices of equal width, one below the other, as the checkpoint has them.
using StackedMatrix = std::vector<WeightView>;

struct EvaByteLayerTensors {
  std::vector<float> attention_norm, mlp_norm;  // [hidden_size], the unit offset added
  std::vector<float> mu, phi;                   // [num_heads, head_dim]
  StackedMatrix qkv;                            // [3 * hidden_size, hidden_size]
  StackedMatrix out;                            // [hidden_size, hidden_size]
  StackedMatrix gate_up;                        // [2 * intermediate_size, hidden_size]
  StackedMatrix down;                           // [hidden_size, intermediate_size]
};

// A checked checkpoint. Embeddings and vectors are float32, exactly as the file has them: they are
// small, and in particular `1 + weight` of a norm would lose most of its weight's digits.
struct EvaByteTensors {
  std::vector<float> embedding;  // [vocab_size, hidden_size]
  std::vector<EvaByteLayerTensors> layers;
  std::vector<float> final_norm;  // [hidden_size], the unit offset added
  StackedMatrix lm_head;          // [num_pred_heads * vocab_size, hidden_size]

  int64_t num_parameters = 0;
  int64_t vector_bytes = 0;  // of what is float32 here
};

// Matrices are views into `checkpoint`. InvalidArgument, naming the file and the tensor, for one
// that is missing, has another shape than `config` says or a type that we do not read, or that
// belongs to a layer that `config` does not have. Tensors with unknown names are ignored, as the
// official code does.
absl::StatusOr<EvaByteTensors> ReadEvaByteTensors(const Checkpoint& checkpoint,
                                                  const EvaByteConfig& config);

}  // namespace evaserve
