#pragma once

#include <span>
#include <vector>

#include "kernels/causal_eva.h"
#include "kernels/testing/eva_layer.h"
#include "kernels/worker_pool.h"

namespace evaserve {

struct CausalEvaOptions {
  CausalEvaShape shape;
  DType dtype = DType::kFloat32;
  bool has_norm = true;
};

// The state of one sequence, full of NaN at first, and its position.
struct CausalEvaMemory {
  std::vector<float> keys, values, open_q, k_bar, beta;
  int max_chunks = 0;
  int position = 0;

  CausalEvaState state();
};

struct CausalEvaOutput {
  std::vector<float> out;          // [tokens, num_heads * head_dim]
  std::vector<float> lse;          // [tokens, num_heads]
  std::vector<float> k_bar, beta;  // [num_heads, full chunks, head_dim]
};

// One layer of the paper's causal EVA. Rows of qkv are [q | k | v], each width() long.
class CausalEvaLayer {
 public:
  // Random maps.
  CausalEvaLayer(const CausalEvaOptions& options, uint32_t seed);
  CausalEvaLayer(const CausalEvaOptions& options, const MapWeights& map_q, const MapWeights& map_k);
  CausalEvaLayer(CausalEvaLayer&&) = default;

  int width() const { return options_.shape.num_heads * options_.shape.head_dim; }
  // [window, num_keys]; empty: none.
  void set_bias(std::vector<float> bias) { bias_ = std::move(bias); }

  // What does not depend on the tokens.
  CausalEvaParams Params() const;
  CausalEvaMemory MakeState(int max_tokens) const;

  // The next counts[i] tokens of each state.
  CausalEvaOutput Step(std::span<CausalEvaMemory> states, std::span<const int> counts,
                       const std::vector<float>& qkv, WorkerPool& pool) const;
  // A whole sequence in calls of so many tokens.
  CausalEvaOutput Run(const std::vector<float>& qkv, const std::vector<int>& cuts,
                      WorkerPool& pool) const;
  // Without landmarks.
  CausalEvaOutput RunReference(const std::vector<float>& qkv) const;

 private:
  CausalEvaOptions options_;
  MapWeights map_q_, map_k_;
  PackedWeight weight_q_, weight_k_;
  std::vector<float> bias_;
};

}  // namespace evaserve
