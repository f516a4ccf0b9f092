#include "models/eva_vit/network.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/vision/image.h"
#include "models/vision/patches.h"

namespace evaserve {
namespace {

absl::StatusOr<EvaVitLayer> ReadLayer(TensorReader& reader, const std::string& prefix,
                                      const EvaVitConfig& config) {
  const int64_t size = config.size, hidden = config.mlp_size;
  EvaVitLayer layer;
  layer.norm1 = ReadNorm(reader, prefix + "norm1.", config.size, config.norm_eps);
  layer.norm2 = ReadNorm(reader, prefix + "norm2.", config.size, config.norm_eps);
  absl::StatusOr<EvaAttention> attention =
      ReadEvaAttention(reader, prefix + "attn.", config.attention, config.num_heads, config.size,
                       config.dtype, config.has_qkv_bias);
  if (!attention.ok()) return attention.status();
  layer.attention = *std::move(attention);
  layer.mlp.is_gated = config.is_gated;
  layer.mlp.fc1 = ReadLinear(reader, prefix + "mlp.fc1.",
                             {config.is_gated ? 2 * hidden : hidden, size}, config.dtype);
  layer.mlp.fc2 = ReadLinear(reader, prefix + "mlp.fc2.", {size, hidden}, config.dtype);
  return layer;
}

}  // namespace

absl::StatusOr<EvaVitWeights> ReadEvaVitWeights(TensorReader& reader, const EvaVitConfig& config) {
  const int64_t size = config.size, patch = config.patch_size;
  EvaVitWeights weights;
  reader.RequireNoFurtherLayer("blocks.", config.num_layers, "depth");
  weights.patch_embed =
      ReadLinear(reader, "patch_embed.proj.", {size, kImageChannels, patch, patch}, config.dtype);
  weights.pos_embed = reader.Vector("pos_embed", {1, config.side(), config.side(), size});
  for (int i = 0; i < config.num_layers && reader.status().ok(); ++i) {
    absl::StatusOr<EvaVitLayer> layer = ReadLayer(reader, absl::StrCat("blocks.", i, "."), config);
    if (!layer.ok()) return layer.status();
    weights.layers.push_back(*std::move(layer));
  }
  weights.norm = ReadNorm(reader, "norm_before_pooling.", config.size, config.norm_eps);
  if (!reader.status().ok()) return reader.status();
  return weights;
}

int64_t Bytes(const EvaVitWeights& weights) {
  int64_t bytes = Bytes(weights.patch_embed) + Bytes(weights.norm) +
                  static_cast<int64_t>(weights.pos_embed.size() * sizeof(float));
  for (const EvaVitLayer& layer : weights.layers) {
    bytes += Bytes(layer.norm1) + Bytes(layer.norm2) + Bytes(layer.attention) +
             Bytes(layer.mlp.fc1) + Bytes(layer.mlp.fc2);
  }
  return bytes;
}

EvaVitNetwork::EvaVitNetwork(const EvaVitConfig& config, EvaVitWeights weights, WorkerPool& workers)
    : config_(config),
      weights_(std::move(weights)),
      regions_(*MakeRegions(config.attention.RegionsOf(config.side(), config.side()))),
      workers_(workers) {}

absl::Status EvaVitNetwork::Run(const float* pixels, int batch, float* features) {
  const int rows = batch * num_tokens();
  EmbedPatches(pixels, batch);
  float* tokens = tokens_.Get(int64_t{rows} * config_.size);
  float* normed = normed_.Get(int64_t{rows} * config_.size);
  std::vector<RegionItem> items;
  for (int i = 0; i < batch; ++i) {
    items.push_back({.regions = &regions_,
                     .token_begin = int64_t{i} * num_tokens(),
                     .landmark_begin = int64_t{i} * regions_.num_chunks});
  }
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    const EvaVitLayer& layer = weights_.layers[i];
    Apply(layer.norm1, tokens, rows, normed, workers_);
    absl::Status status =
        AddAttention(layer.attention, items, normed, rows, tokens, attention_, workers_);
    if (!status.ok()) return status;
    Apply(layer.norm2, tokens, rows, normed, workers_);
    AddMlp(layer.mlp, normed, rows, scratch_.Get(MlpScratch(layer.mlp, rows)), tokens, workers_);
    if (probe_) probe_(static_cast<int>(i), tokens);
  }
  Pool(batch, features);
  return absl::OkStatus();
}

void EvaVitNetwork::EmbedPatches(const float* pixels, int batch) {
  const int64_t size = config_.size, side = config_.image_size, plane = side * side;
  const int64_t patch_values = int64_t{kImageChannels} * config_.patch_size * config_.patch_size;
  float* patches = scratch_.Get(int64_t{batch} * num_tokens() * patch_values);
  float* tokens = tokens_.Get(int64_t{batch} * num_tokens() * size);
  workers_.Run(batch, [&](int i, int /*worker*/) {
    GatherPatches({.x = pixels + i * kImageChannels * plane,
                   .channel_stride = plane,
                   .row_stride = side,
                   .column_stride = 1,
                   .channels = kImageChannels,
                   .height = config_.image_size,
                   .width = config_.image_size,
                   .kernel = config_.patch_size,
                   .stride = config_.patch_size,
                   .y = patches + int64_t{i} * num_tokens() * patch_values});
    std::memcpy(tokens + int64_t{i} * num_tokens() * size, weights_.pos_embed.data(),
                weights_.pos_embed.size() * sizeof(float));
  });
  Apply(weights_.patch_embed, patches, batch * num_tokens(), tokens, workers_,
        /*accumulate=*/true);
}

void EvaVitNetwork::Pool(int batch, float* features) {
  const int64_t size = config_.size;
  const int rows = batch * num_tokens();
  float* normed = normed_.Get(rows * size);
  Apply(weights_.norm, tokens_.Get(rows * size), rows, normed, workers_);
  MeanOfRows(normed, batch, num_tokens(), config_.size, features);
}

}  // namespace evaserve
