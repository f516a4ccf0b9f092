#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "models/eva/causal_attention.h"
#include "models/eva_lm/config.h"
#include "models/eva_lm/word_tables.h"
#include "models/float_buffer.h"

namespace evaserve {

struct EvaLmLayer {
  CausalAttention attention;
  NormLayer attention_norm;  // self_attn_layer_norm
  Mlp mlp;
  NormLayer mlp_norm;  // final_layer_norm
};

struct EvaLmWeights {
  WordTables words;
  std::vector<float> positions;  // [max_positions, size]
  std::vector<EvaLmLayer> layers;
  NormLayer norm;  // after the last layer; empty for none
};

// Errors are the reader's.
absl::StatusOr<EvaLmWeights> ReadEvaLmWeights(TensorReader& reader, const EvaLmConfig& config);

int64_t Bytes(const EvaLmWeights& weights);

// The next tokens of one sequence.
struct EvaLmPiece {
  float* state = nullptr;  // [state_floats()], as its earlier pieces left it
  int position = 0;        // tokens that it has had
  int num_tokens = 0;
};

// On the CPU. Not thread-safe.
class EvaLmNetwork {
 public:
  EvaLmNetwork(const EvaLmConfig& config, EvaLmWeights weights, WorkerPool& workers);

  WordTables& words() { return weights_.words; }

  // Of one sequence, in all layers. Needs no initial value.
  int64_t state_floats() const { return layout_.num_floats() * config_.num_layers; }

  // From `tokens`, those of the pieces one after the other, to hidden [tokens, size] after the last
  // norm, and brings the states forward. All tokens are in the vocabulary, and no sequence gets
  // longer than max_positions. A row's result does not depend, to the bit, on the other sequences
  // or on how its own is cut into pieces.
  absl::Status Run(std::span<const TokenId> tokens, std::span<const EvaLmPiece> pieces,
                   float* hidden);

 private:
  void Embed(std::span<const TokenId> tokens, std::span<const EvaLmPiece> pieces, float* hidden);
  absl::Status RunLayer(int index, std::span<const EvaLmPiece> pieces, int rows, float* hidden);

  const EvaLmConfig config_;
  EvaLmWeights weights_;
  WorkerPool& workers_;
  const CausalStateLayout layout_;  // of one layer
  std::vector<CausalEvaSequence> sequences_;
  FloatBuffer normed_, scratch_;
  AttentionBuffers attention_;
};

}  // namespace evaserve
