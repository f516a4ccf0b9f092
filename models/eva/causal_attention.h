#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/causal_eva.h"
#include "models/eva/attention.h"
#include "nlohmann/json.hpp"

namespace evaserve {

// "attn" of a causal model's config.json.
struct CausalAttentionConfig {
  int window = 0;  // tokens, a multiple of chunk
  int chunk = 0;   // tokens
  bool overlap = false;
  bool has_t5_bias = false;  // use_t5_rpe
  bool has_norm = true;      // in the maps of the chunks' means; adaptive_proj is "qk"
};

// InvalidArgument, naming `where` and the key, for a value that is missing, malformed or not
// supported.
absl::StatusOr<CausalAttentionConfig> ReadCausalAttentionConfig(const nlohmann::json& attn,
                                                                const std::string& where);

// As for non-causal attention (attention.h); all heads share the biases.
absl::Status CheckBiases(const CausalAttentionConfig& config, int num_layers);

// The paper's causal EVA attention with its projections.
struct CausalAttention {
  CausalEvaShape shape;
  LinearLayer qkv, out;
  AdaptiveLayer map_q, map_k;
  std::vector<float> bias;  // [window, shape.num_keys()], empty for none

  int size() const { return shape.num_heads * shape.head_dim; }
  float scale() const;  // of the logits
};

// `prefix` as in "layers.0.self_attn.". Errors are the reader's, also for a tensor that `config`
// has no place for, but for a T5 bias that does not fit: InvalidArgument.
absl::StatusOr<CausalAttention> ReadCausalAttention(TensorReader& reader, const std::string& prefix,
                                                    const CausalAttentionConfig& config,
                                                    int num_heads, int size, DType dtype);

int64_t Bytes(const CausalAttention& attention);

// How one layer's state of a sequence lies in memory.
struct CausalStateLayout {
  CausalEvaShape shape;
  int max_chunks = 0;

  int64_t num_floats() const;
  CausalEvaState At(float* begin) const;
};

// residual += attention(x), for the tokens of `sequences`, in rows of attention.size() floats, and
// brings the sequences' states of this layer forward.
absl::Status AddCausalAttention(const CausalAttention& attention,
                                std::span<const CausalEvaSequence> sequences, const float* x,
                                int rows, float* residual, AttentionBuffers& buffers,
                                WorkerPool& workers);

}  // namespace evaserve
