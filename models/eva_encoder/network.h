#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "kernels/regions.h"
#include "models/eva/attention.h"
#include "models/eva_encoder/config.h"

namespace evaserve {

struct EvaEncoderLayer {
  EvaAttention attention;
  NormLayer attention_norm;  // self_attn_layer_norm
  Mlp mlp;
  NormLayer mlp_norm;  // final_layer_norm
};

// What guesses the tokens behind masks, as RoBERTa's.
struct MaskedLmHead {
  LinearLayer dense;
  NormLayer norm;
  LinearLayer output;  // [vocab_size, size], the embeddings unless the head has its own
};

struct EvaEncoderWeights {
  std::vector<float> embedding;  // [vocab_size, size], times embed_scale
  std::vector<float> positions;  // [max_tokens, size]
  NormLayer embedding_norm;      // empty for none
  std::vector<EvaEncoderLayer> layers;
  NormLayer norm;  // after the last layer; empty for none
  MaskedLmHead head;
};

// Errors are the reader's.
absl::StatusOr<EvaEncoderWeights> ReadEvaEncoderWeights(TensorReader& reader,
                                                        const EvaEncoderConfig& config);

int64_t Bytes(const EvaEncoderWeights& weights);

// On the CPU. Not thread-safe.
class EvaEncoderNetwork {
 public:
  EvaEncoderNetwork(const EvaEncoderConfig& config, EvaEncoderWeights weights, WorkerPool& workers);

  const EvaEncoderConfig& config() const { return config_; }
  int64_t weight_bytes() const { return Bytes(weights_); }

  // InvalidArgument unless a row of so many tokens, at most max_tokens, has windows and chunks.
  absl::Status CheckLength(int num_tokens) const;

  // From `tokens`, rows of the given lengths one after the other, to hidden [tokens, size]. All are
  // in the vocabulary, and CheckLength() has taken every length. A row's result does not depend, to
  // the bit, on the others.
  absl::Status Run(std::span<const int32_t> tokens, std::span<const int> lengths, float* hidden);

  // The masked-LM head, which the config has: from hidden [rows, size] to logits [rows,
  // vocab_size].
  void ComputeLogits(const float* hidden, int rows, float* logits);

 private:
  void Embed(std::span<const int32_t> tokens, std::span<const int> lengths, float* hidden);
  absl::Status RunLayer(const EvaEncoderLayer& layer, std::span<const RegionItem> items, int rows,
                        float* hidden);
  absl::StatusOr<const Regions*> RegionsFor(int num_tokens);

  const EvaEncoderConfig config_;
  const EvaEncoderWeights weights_;
  WorkerPool& workers_;
  std::map<int, Regions> regions_;  // by number of tokens
  int64_t region_entries_ = 0;      // of all their tables
  FloatBuffer normed_, scratch_;
  AttentionBuffers attention_;
};

}  // namespace evaserve
