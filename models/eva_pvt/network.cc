#include "models/eva_pvt/network.h"

#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/depthwise_conv.h"
#include "kernels/elementwise.h"
#include "models/vision/image.h"
#include "models/vision/patches.h"

namespace evaserve {
namespace {

constexpr int kTaps = 9;

// One window over the whole map and no landmark: softmax attention.
Regions WholeMap(int num_tokens) {
  Regions regions{.num_tokens = num_tokens,
                  .num_windows = 1,
                  .window_queries = num_tokens,
                  .window_keys = num_tokens,
                  .chunk_members = 1};
  regions.queries.resize(num_tokens);
  std::iota(regions.queries.begin(), regions.queries.end(), 0);
  regions.keys = regions.queries;
  return regions;
}

ConvMlp ReadMlp(TensorReader& reader, const std::string& prefix, const EvaPvtStageConfig& stage,
                DType dtype) {
  const int64_t hidden = stage.mlp_size, size = stage.size;
  ConvMlp mlp;
  mlp.fc1 = ReadLinear(reader, prefix + "fc1.", {hidden, size}, dtype);
  mlp.fc2 = ReadLinear(reader, prefix + "fc2.", {size, hidden}, dtype);
  const std::vector<float> weight =
      reader.Vector(prefix + "dwconv.dwconv.weight", {hidden, 1, 3, 3});
  mlp.conv_bias = reader.Vector(prefix + "dwconv.dwconv.bias", {hidden});
  mlp.conv_weight.resize(weight.size());
  for (size_t i = 0; i < weight.size(); ++i) {
    mlp.conv_weight[i % kTaps * hidden + i / kTaps] = weight[i];
  }
  return mlp;
}

absl::StatusOr<EvaPvtLayer> ReadLayer(TensorReader& reader, const std::string& prefix,
                                      const EvaPvtStageConfig& stage, const EvaPvtConfig& config) {
  EvaPvtLayer layer;
  layer.norm1 = ReadNorm(reader, prefix + "norm1.", stage.size, config.norm_eps);
  layer.norm2 = ReadNorm(reader, prefix + "norm2.", stage.size, config.norm_eps);
  if (stage.is_eva) {
    absl::StatusOr<EvaAttention> attention =
        ReadEvaAttention(reader, prefix + "attn.attn_fn.", config.attention, stage.num_heads,
                         stage.size, config.dtype, config.has_qkv_bias);
    if (!attention.ok()) return attention.status();
    layer.attention = *std::move(attention);
  } else {
    reader.RequireAbsent(prefix + "attn.attn_fn.adaptive_mu_k.0.weight", "sr_ratios");
    layer.attention = ReadSoftmaxAttention(reader, prefix + "attn.attn_fn.", stage.num_heads,
                                           stage.size, config.dtype, config.has_qkv_bias);
  }
  layer.mlp = ReadMlp(reader, prefix + "mlp.", stage, config.dtype);
  return layer;
}

absl::StatusOr<EvaPvtStage> ReadStage(TensorReader& reader, int index, const EvaPvtConfig& config) {
  const EvaPvtStageConfig& stage = config.stages[index];
  const int64_t channels = index == 0 ? kImageChannels : config.stages[index - 1].size;
  const std::string patch_embed = absl::StrCat("patch_embed", index + 1, ".");
  const std::string block = absl::StrCat("block", index + 1, ".");
  EvaPvtStage weights;
  reader.RequireNoFurtherLayer(block, stage.num_layers,
                               absl::StrCat("depths of stage ", index + 1));
  weights.patch_embed =
      ReadLinear(reader, patch_embed + "proj.", {stage.size, channels, stage.kernel, stage.kernel},
                 config.dtype);
  weights.patch_norm = ReadNorm(reader, patch_embed + "norm.", stage.size, config.patch_norm_eps);
  for (int i = 0; i < stage.num_layers && reader.status().ok(); ++i) {
    absl::StatusOr<EvaPvtLayer> layer =
        ReadLayer(reader, absl::StrCat(block, i, "."), stage, config);
    if (!layer.ok()) return layer.status();
    weights.layers.push_back(*std::move(layer));
  }
  weights.norm =
      ReadNorm(reader, absl::StrCat("norm", index + 1, "."), stage.size, config.norm_eps);
  return weights;
}

}  // namespace

absl::StatusOr<EvaPvtWeights> ReadEvaPvtWeights(TensorReader& reader, const EvaPvtConfig& config) {
  EvaPvtWeights weights;
  for (int i = 0; i < kNumPvtStages; ++i) {
    absl::StatusOr<EvaPvtStage> stage = ReadStage(reader, i, config);
    if (!stage.ok()) return stage.status();
    weights.stages[i] = *std::move(stage);
  }
  if (!reader.status().ok()) return reader.status();
  return weights;
}

int64_t Bytes(const EvaPvtWeights& weights) {
  int64_t bytes = 0;
  for (const EvaPvtStage& stage : weights.stages) {
    bytes += Bytes(stage.patch_embed) + Bytes(stage.patch_norm) + Bytes(stage.norm);
    for (const EvaPvtLayer& layer : stage.layers) {
      const size_t conv_floats = layer.mlp.conv_weight.size() + layer.mlp.conv_bias.size();
      bytes += Bytes(layer.norm1) + Bytes(layer.norm2) + Bytes(layer.attention) +
               Bytes(layer.mlp.fc1) + Bytes(layer.mlp.fc2) +
               static_cast<int64_t>(conv_floats * sizeof(float));
    }
  }
  return bytes;
}

EvaPvtNetwork::EvaPvtNetwork(const EvaPvtConfig& config, EvaPvtWeights weights, WorkerPool& workers)
    : config_(config), weights_(std::move(weights)), workers_(workers) {
  for (int i = 0; i < kNumPvtStages; ++i) {
    const EvaPvtStageConfig& stage = config.stages[i];
    regions_[i] = stage.is_eva ? *MakeRegions(config.attention.RegionsOf(stage.side, stage.side))
                               : WholeMap(stage.side * stage.side);
  }
}

absl::Status EvaPvtNetwork::Run(const float* pixels, int batch, float* features) {
  Map map{.data = pixels,
          .side = config_.image_size,
          .channels = kImageChannels,
          .channels_last = false};
  for (int i = 0; i < kNumPvtStages; ++i) {
    const EvaPvtStageConfig& stage = config_.stages[i];
    const int rows = batch * stage.side * stage.side;
    float* tokens = tokens_.Get(int64_t{rows} * stage.size);
    EmbedPatches(i, map, batch, tokens);
    float* normed = map_.Get(int64_t{rows} * stage.size);
    if (absl::Status status = RunLayers(i, batch, tokens, normed); !status.ok()) return status;
    Apply(weights_.stages[i].norm, tokens, rows, normed, workers_);
    if (probe_) probe_(i, normed);
    map = {.data = normed, .side = stage.side, .channels = stage.size};
  }
  MeanOfRows(map.data, batch, map.side * map.side, map.channels, features);
  return absl::OkStatus();
}

void EvaPvtNetwork::EmbedPatches(int index, const Map& from, int batch, float* tokens) {
  const EvaPvtStageConfig& stage = config_.stages[index];
  const int64_t plane = int64_t{from.side} * from.side;
  const int rows_per_item = stage.side * stage.side;
  const int64_t row_size = int64_t{from.channels} * stage.kernel * stage.kernel;
  float* patches = scratch_.Get(int64_t{batch} * rows_per_item * row_size);
  workers_.Run(batch, [&](int i, int /*worker*/) {
    GatherPatches({.x = from.data + i * plane * from.channels,
                   .channel_stride = from.channels_last ? 1 : plane,
                   .row_stride = int64_t{from.side} * (from.channels_last ? from.channels : 1),
                   .column_stride = from.channels_last ? from.channels : 1,
                   .channels = from.channels,
                   .height = from.side,
                   .width = from.side,
                   .kernel = stage.kernel,
                   .stride = stage.stride,
                   .padding = stage.padding,
                   .y = patches + int64_t{i} * rows_per_item * row_size});
  });
  const EvaPvtStage& weights = weights_.stages[index];
  Apply(weights.patch_embed, patches, batch * rows_per_item, tokens, workers_);
  Apply(weights.patch_norm, tokens, batch * rows_per_item, tokens, workers_);
}

absl::Status EvaPvtNetwork::RunLayers(int index, int batch, float* tokens, float* normed) {
  const EvaPvtStageConfig& stage = config_.stages[index];
  const Regions& regions = regions_[index];
  const int tokens_per_item = stage.side * stage.side;
  const int rows = batch * tokens_per_item;
  std::vector<RegionItem> items;
  for (int i = 0; i < batch; ++i) {
    items.push_back({.regions = &regions,
                     .token_begin = int64_t{i} * tokens_per_item,
                     .landmark_begin = int64_t{i} * regions.num_chunks});
  }
  for (const EvaPvtLayer& layer : weights_.stages[index].layers) {
    Apply(layer.norm1, tokens, rows, normed, workers_);
    absl::Status status =
        AddAttention(layer.attention, items, normed, rows, tokens, attention_, workers_);
    if (!status.ok()) return status;
    Apply(layer.norm2, tokens, rows, normed, workers_);
    AddConvMlp(layer.mlp, stage, batch, normed, tokens);
  }
  return absl::OkStatus();
}

void EvaPvtNetwork::AddConvMlp(const ConvMlp& mlp, const EvaPvtStageConfig& stage, int batch,
                               const float* x, float* residual) {
  // Map by map: what lies between the two products is several times as wide as x.
  const int rows = stage.side * stage.side;
  const int64_t hidden = stage.mlp_size;
  float* wide = scratch_.Get(rows * hidden);
  float* convolved = hidden_.Get(rows * hidden);
  for (int i = 0; i < batch; ++i) {
    const int64_t begin = int64_t{i} * rows * stage.size;
    Apply(mlp.fc1, x + begin, rows, wide, workers_);
    DepthwiseConvCpu({.x = wide,
                      .weight = mlp.conv_weight.data(),
                      .bias = mlp.conv_bias.data(),
                      .y = convolved,
                      .batch = 1,
                      .height = stage.side,
                      .width = stage.side,
                      .channels = stage.mlp_size},
                     workers_);
    GeluCpu({.x = convolved,
             .x_stride = hidden,
             .y = convolved,
             .y_stride = hidden,
             .rows = rows,
             .size = stage.mlp_size},
            workers_);
    Apply(mlp.fc2, convolved, rows, residual + begin, workers_, /*accumulate=*/true);
  }
}

}  // namespace evaserve
