#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/landmarks.h"
#include "kernels/regions.h"
#include "models/eva/layers.h"
#include "models/float_buffer.h"
#include "nlohmann/json.hpp"

namespace evaserve {

// The published code's adaptive_proj: how the mean of a chunk becomes its landmark's key and query.
enum class AdaptiveProj { kDefault, kNoNorm, kNone };

// "attn" of a config.json.
struct EvaAttentionConfig {
  int window = 0;
  int num_landmarks = 0;
  bool overlap = false;
  bool is_2d = false;
  bool has_map_bias = false;  // use_rpe
  bool has_t5_bias = false;   // use_t5_rpe
  AdaptiveProj proj = AdaptiveProj::kDefault;

  // Of the maps of a chunk's means: whether that of queries exists, and whether they have norms.
  bool has_map_q() const { return proj != AdaptiveProj::kNone; }
  bool has_norm() const { return proj != AdaptiveProj::kNoNorm; }

  RegionShape RegionsOf(int height, int width) const;
};

// The floats of all biases that a model makes of its tables, 1 GiB. The tables are much smaller, so
// a small checkpoint could ask for any memory.
inline constexpr int64_t kMaxBiasFloats = int64_t{1} << 28;

// InvalidArgument, naming window_size and `key`, which asks for the biases, if a bias for each of
// `num_pairs` of places, in so many heads and layers, is more than that.
absl::Status CheckBiases(const char* key, int window, int64_t num_pairs, int num_heads,
                         int num_layers);

// Those of a model of `config`, if it has any.
absl::Status CheckBiases(const EvaAttentionConfig& config, int num_heads, int num_layers);

// InvalidArgument, naming `where` and the key, for a value that is missing, malformed or not
// supported.
absl::StatusOr<EvaAttentionConfig> ReadEvaAttentionConfig(const nlohmann::json& attn,
                                                          const std::string& where);

// The learned map of a chunk's mean: none of its parts, or a linear layer with or without a norm.
struct AdaptiveLayer {
  std::vector<PackedWeight> weight;  // one, or none
  std::vector<float> bias;
  NormLayer norm;

  AdaptiveMap map() const;
};

// `prefix` as in "blocks.0.attn.adaptive_mu_q.".
AdaptiveLayer ReadAdaptiveLayer(TensorReader& reader, const std::string& prefix, int head_dim,
                                bool has_norm);

int64_t Bytes(const AdaptiveLayer& layer);

// The paper's non-causal EVA attention with its projections.
struct EvaAttention {
  int num_heads = 0;
  int head_dim = 0;
  LinearLayer qkv, proj;
  AdaptiveLayer map_q, map_k;
  std::vector<float> bias;  // [num_heads, window places, key places], empty for none

  int size() const { return num_heads * head_dim; }
  float scale() const;  // of the logits
};

// `prefix` as in "blocks.0.attn.". Errors are the reader's, also for a tensor that `config` has no
// place for, but for a T5 or map bias that does not fit: InvalidArgument.
absl::StatusOr<EvaAttention> ReadEvaAttention(TensorReader& reader, const std::string& prefix,
                                              const EvaAttentionConfig& config, int num_heads,
                                              int size, DType dtype, bool has_qkv_bias);

// Likewise without landmarks: softmax over the keys of a window.
EvaAttention ReadSoftmaxAttention(TensorReader& reader, const std::string& prefix, int num_heads,
                                  int size, DType dtype, bool has_qkv_bias);

// Scratch of a pass; one serves all layers.
struct AttentionBuffers {
  FloatBuffer qkv, out, k_bar, beta;
};

// residual += attention(x), for the tokens of `items`, in rows of attention.size() floats. x may be
// residual.
absl::Status AddAttention(const EvaAttention& attention, std::span<const RegionItem> items,
                          const float* x, int rows, float* residual, AttentionBuffers& buffers,
                          WorkerPool& workers);

int64_t Bytes(const EvaAttention& attention);

}  // namespace evaserve
