#include "models/eva_lm/network.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

absl::StatusOr<EvaLmLayer> ReadLayer(TensorReader& reader, const std::string& prefix,
                                     const EvaLmConfig& config) {
  EvaLmLayer layer;
  absl::StatusOr<CausalAttention> attention = ReadCausalAttention(
      reader, prefix + "self_attn.", config.attention, config.num_heads, config.size, config.dtype);
  if (!attention.ok()) return attention.status();
  layer.attention = *std::move(attention);
  layer.attention_norm =
      ReadNorm(reader, prefix + "self_attn_layer_norm.", config.size, config.norm_eps);
  layer.mlp.activation = config.activation;
  layer.mlp.fc1 = ReadLinear(reader, prefix + "fc1.", {config.mlp_size, config.size}, config.dtype);
  layer.mlp.fc2 = ReadLinear(reader, prefix + "fc2.", {config.size, config.mlp_size}, config.dtype);
  layer.mlp_norm = ReadNorm(reader, prefix + "final_layer_norm.", config.size, config.norm_eps);
  return layer;
}

}  // namespace

absl::StatusOr<EvaLmWeights> ReadEvaLmWeights(TensorReader& reader, const EvaLmConfig& config) {
  EvaLmWeights weights{.words = WordTables(reader, config)};
  if (!reader.status().ok()) return reader.status();
  weights.positions = SinusoidPositions(config.max_positions, config.size, config.padding_idx);
  for (int i = 0; i < config.num_layers && reader.status().ok(); ++i) {
    absl::StatusOr<EvaLmLayer> layer = ReadLayer(reader, absl::StrCat("layers.", i, "."), config);
    if (!layer.ok()) return layer.status();
    weights.layers.push_back(*std::move(layer));
  }
  if (config.has_final_norm) {
    weights.norm = ReadNorm(reader, "layer_norm.", config.size, config.norm_eps);
  }
  if (!reader.status().ok()) return reader.status();
  return weights;
}

int64_t Bytes(const EvaLmWeights& weights) {
  int64_t bytes = weights.words.bytes() + Bytes(weights.norm) +
                  static_cast<int64_t>(weights.positions.size() * sizeof(float));
  for (const EvaLmLayer& layer : weights.layers) {
    bytes += Bytes(layer.attention) + Bytes(layer.attention_norm) + Bytes(layer.mlp.fc1) +
             Bytes(layer.mlp.fc2) + Bytes(layer.mlp_norm);
  }
  return bytes;
}

EvaLmNetwork::EvaLmNetwork(const EvaLmConfig& config, EvaLmWeights weights, WorkerPool& workers)
    : config_(config),
      weights_(std::move(weights)),
      workers_(workers),
      layout_{weights_.layers.front().attention.shape,
              config.max_positions / config.attention.chunk} {}

absl::Status EvaLmNetwork::Run(std::span<const TokenId> tokens, std::span<const EvaLmPiece> pieces,
                               float* hidden) {
  const int rows = static_cast<int>(tokens.size());
  Embed(tokens, pieces, hidden);
  for (int i = 0; i < config_.num_layers; ++i) {
    if (absl::Status status = RunLayer(i, pieces, rows, hidden); !status.ok()) return status;
  }
  if (config_.has_final_norm) Apply(weights_.norm, hidden, rows, hidden, workers_);
  return absl::OkStatus();
}

void EvaLmNetwork::Embed(std::span<const TokenId> tokens, std::span<const EvaLmPiece> pieces,
                         float* hidden) {
  weights_.words.Embed(tokens, hidden, workers_);
  const int64_t size = config_.size;
  float* x = hidden;
  for (const EvaLmPiece& piece : pieces) {
    const float* position = weights_.positions.data() + piece.position * size;
    for (int64_t i = 0; i < piece.num_tokens * size; ++i) *x++ += position[i];
  }
}

absl::Status EvaLmNetwork::RunLayer(int index, std::span<const EvaLmPiece> pieces, int rows,
                                    float* hidden) {
  const EvaLmLayer& layer = weights_.layers[index];
  sequences_.clear();
  int row = 0;
  for (const EvaLmPiece& piece : pieces) {
    sequences_.push_back({.state = layout_.At(piece.state + index * layout_.num_floats()),
                          .position = piece.position,
                          .token_begin = row,
                          .num_tokens = piece.num_tokens});
    row += piece.num_tokens;
  }
  float* x = normed_.Get(int64_t{rows} * config_.size);
  Apply(layer.attention_norm, hidden, rows, x, workers_);
  absl::Status status =
      AddCausalAttention(layer.attention, sequences_, x, rows, hidden, attention_, workers_);
  if (!status.ok()) return status;
  Apply(layer.mlp_norm, hidden, rows, x, workers_);
  AddMlp(layer.mlp, x, rows, scratch_.Get(MlpScratch(layer.mlp, rows)), hidden, workers_);
  return absl::OkStatus();
}

}  // namespace evaserve
