#include "models/eva_encoder/network.h"

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

// The tables of a thousand rows of different lengths, each some hundred tokens.
constexpr int64_t kMaxRegionEntries = 1 << 22;

absl::StatusOr<EvaEncoderLayer> ReadLayer(TensorReader& reader, const std::string& prefix,
                                          const EvaEncoderConfig& config) {
  EvaEncoderLayer layer;
  absl::StatusOr<EvaAttention> attention =
      ReadEvaAttention(reader, prefix + "self_attn.attn.", config.attention, config.num_heads,
                       config.size, config.dtype, /*has_qkv_bias=*/true);
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

MaskedLmHead ReadHead(TensorReader& reader, const std::vector<float>& embedding,
                      const EvaEncoderConfig& config) {
  MaskedLmHead head;
  head.dense = ReadLinear(reader, "lm_head.dense.", {config.size, config.size}, config.dtype);
  head.norm = ReadNorm(reader, "lm_head.layer_norm.", config.size, config.norm_eps);
  if (reader.Has("lm_head.weight")) {
    head.output = ReadLinear(reader, "lm_head.", {config.vocab_size, config.size}, config.dtype);
    return head;
  }
  head.output.bias = reader.Vector("lm_head.bias", {config.vocab_size});
  if (!reader.status().ok()) return head;
  const WeightView tied = {embedding.data(), DType::kFloat32, config.vocab_size, config.size};
  head.output.weight = PackedWeight::Pack({&tied, 1}, config.dtype);
  return head;
}

}  // namespace

absl::StatusOr<EvaEncoderWeights> ReadEvaEncoderWeights(TensorReader& reader,
                                                        const EvaEncoderConfig& config) {
  EvaEncoderWeights weights;
  weights.embedding = reader.Vector("embed_tokens.weight", {config.vocab_size, config.size});
  if (config.has_masked_lm_head) weights.head = ReadHead(reader, weights.embedding, config);
  if (!reader.status().ok()) return reader.status();
  for (float& value : weights.embedding) value *= config.embed_scale;
  weights.positions = ReadPositions(reader, {.are_learned = config.has_learned_positions,
                                             .num_positions = config.max_tokens,
                                             .size = config.size,
                                             .padding_idx = config.padding_idx});
  if (config.has_embedding_norm) {
    weights.embedding_norm = ReadNorm(reader, "layernorm_embedding.", config.size, config.norm_eps);
  }
  for (int i = 0; i < config.num_layers && reader.status().ok(); ++i) {
    absl::StatusOr<EvaEncoderLayer> layer =
        ReadLayer(reader, absl::StrCat("layers.", i, "."), config);
    if (!layer.ok()) return layer.status();
    weights.layers.push_back(*std::move(layer));
  }
  if (config.normalizes_before) {
    weights.norm = ReadNorm(reader, "layer_norm.", config.size, config.norm_eps);
  }
  if (!reader.status().ok()) return reader.status();
  return weights;
}

int64_t Bytes(const EvaEncoderWeights& weights) {
  const MaskedLmHead& head = weights.head;
  int64_t bytes =
      static_cast<int64_t>((weights.embedding.size() + weights.positions.size()) * sizeof(float)) +
      Bytes(weights.embedding_norm) + Bytes(weights.norm) + Bytes(head.dense) + Bytes(head.norm) +
      Bytes(head.output);
  for (const EvaEncoderLayer& layer : weights.layers) {
    bytes += Bytes(layer.attention) + Bytes(layer.attention_norm) + Bytes(layer.mlp.fc1) +
             Bytes(layer.mlp.fc2) + Bytes(layer.mlp_norm);
  }
  return bytes;
}

EvaEncoderNetwork::EvaEncoderNetwork(const EvaEncoderConfig& config, EvaEncoderWeights weights,
                                     WorkerPool& workers)
    : config_(config), weights_(std::move(weights)), workers_(workers) {}

absl::Status EvaEncoderNetwork::CheckLength(int num_tokens) const {
  return Validate(config_.RegionsOf(num_tokens));
}

absl::Status EvaEncoderNetwork::Run(std::span<const int32_t> tokens, std::span<const int> lengths,
                                    float* hidden) {
  const int rows = static_cast<int>(tokens.size());
  if (region_entries_ > kMaxRegionEntries) {
    regions_.clear();
    region_entries_ = 0;
  }
  std::vector<RegionItem> items;
  RegionItem item;
  for (int length : lengths) {
    const absl::StatusOr<const Regions*> regions = RegionsFor(length);
    if (!regions.ok()) return regions.status();
    item.regions = *regions;
    items.push_back(item);
    item.token_begin += length;
    item.landmark_begin += item.regions->num_chunks;
  }
  Embed(tokens, lengths, hidden);
  for (const EvaEncoderLayer& layer : weights_.layers) {
    if (absl::Status status = RunLayer(layer, items, rows, hidden); !status.ok()) return status;
  }
  if (config_.normalizes_before) Apply(weights_.norm, hidden, rows, hidden, workers_);
  return absl::OkStatus();
}

void EvaEncoderNetwork::ComputeLogits(const float* hidden, int rows, float* logits) {
  const MaskedLmHead& head = weights_.head;
  float* x = scratch_.Get(int64_t{rows} * config_.size);
  Apply(head.dense, hidden, rows, x, workers_);
  Activate(config_.activation, x, rows, config_.size, workers_);
  Apply(head.norm, x, rows, x, workers_);
  Apply(head.output, x, rows, logits, workers_);
}

void EvaEncoderNetwork::Embed(std::span<const int32_t> tokens, std::span<const int> lengths,
                              float* hidden) {
  const int64_t size = config_.size;
  const int32_t* token = tokens.data();
  float* x = hidden;
  for (int length : lengths) {
    const float* position = weights_.positions.data();
    for (int i = 0; i < length; ++i, ++token, x += size, position += size) {
      const float* embedding = weights_.embedding.data() + *token * size;
      for (int64_t j = 0; j < size; ++j) x[j] = embedding[j] + position[j];
    }
  }
  if (!config_.has_embedding_norm) return;
  Apply(weights_.embedding_norm, hidden, static_cast<int>(tokens.size()), hidden, workers_);
}

absl::Status EvaEncoderNetwork::RunLayer(const EvaEncoderLayer& layer,
                                         std::span<const RegionItem> items, int rows,
                                         float* hidden) {
  const bool before = config_.normalizes_before;
  float* x = before ? normed_.Get(int64_t{rows} * config_.size) : hidden;
  if (before) Apply(layer.attention_norm, hidden, rows, x, workers_);
  absl::Status status = AddAttention(layer.attention, items, x, rows, hidden, attention_, workers_);
  if (!status.ok()) return status;
  Apply(before ? layer.mlp_norm : layer.attention_norm, hidden, rows, x, workers_);
  AddMlp(layer.mlp, x, rows, scratch_.Get(MlpScratch(layer.mlp, rows)), hidden, workers_);
  if (!before) Apply(layer.mlp_norm, hidden, rows, hidden, workers_);
  return absl::OkStatus();
}

absl::StatusOr<const Regions*> EvaEncoderNetwork::RegionsFor(int num_tokens) {
  const auto found = regions_.find(num_tokens);
  if (found != regions_.end()) return &found->second;
  absl::StatusOr<Regions> regions = MakeRegions(config_.RegionsOf(num_tokens));
  if (!regions.ok()) return regions.status();
  region_entries_ += static_cast<int64_t>(regions->queries.size() + regions->keys.size() +
                                          regions->members.size());
  return &regions_.emplace(num_tokens, *std::move(regions)).first->second;
}

}  // namespace evaserve
