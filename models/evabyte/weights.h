#pragma once

#include <cstdint>
#include <vector>

#include "kernels/linear.h"
#include "models/evabyte/tensors.h"

namespace evaserve {

struct EvaByteLayer {
  std::vector<float> attention_norm, mlp_norm;  // [hidden_size], the unit offset added
  std::vector<float> mu, phi;                   // [num_heads, head_dim]
  PackedWeight qkv;                             // [3 * hidden_size, hidden_size]
  PackedWeight out;                             // [hidden_size, hidden_size]
  PackedWeight gate_up;                         // [2 * intermediate_size, hidden_size]
  PackedWeight down;                            // [hidden_size, intermediate_size]
};

// As the CPU's kernels read them: matrices are rounded to the model's type.
struct EvaByteWeights {
  std::vector<float> embedding;  // [vocab_size, hidden_size]
  std::vector<EvaByteLayer> layers;
  std::vector<float> final_norm;  // [hidden_size], the unit offset added
  PackedWeight lm_head;           // [num_pred_heads * vocab_size, hidden_size]

  int64_t num_parameters = 0;
  int64_t bytes = 0;  // in memory
};

// Needs the checkpoint of `tensors` no more when it returns.
EvaByteWeights PackEvaByteWeights(EvaByteTensors tensors, DType dtype);

}  // namespace evaserve
