#include "models/eva/attention.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/adaptive_norm.h"
#include "kernels/relative_bias.h"
#include "kernels/window_attend.h"
#include "models/io/json_fields.h"

namespace evaserve {
namespace {

constexpr int kMaxSide = 4096;
constexpr int kMaxLandmarks = 1 << 20;

AdaptiveProj ReadProj(JsonFields& fields) {
  const std::string name = fields.String("adaptive_proj", "default");
  if (name == "default") return AdaptiveProj::kDefault;
  if (name == "no-ln") return AdaptiveProj::kNoNorm;
  if (name != "none") fields.Fail("adaptive_proj", "\"default\", \"no-ln\" or \"none\"");
  return AdaptiveProj::kNone;
}

absl::StatusOr<std::vector<float>> ReadMapBias(TensorReader& reader, const std::string& prefix,
                                               const RegionShape& shape, int num_heads) {
  const int window = shape.window, extension = shape.extension();
  const std::string name = prefix + "local_relative_position_bias_table";
  if (!shape.is_2d) {
    return reader.Vector(name, {num_heads, window, window + 2 * extension});
  }
  const int entries = 2 * (window + extension - 1) * (2 * extension + window + 1) + 1;
  const std::vector<float> table = reader.Vector(name, {entries, num_heads});
  if (!reader.status().ok()) return reader.status();
  return MapBias(table, num_heads, window, extension);
}

absl::StatusOr<std::vector<float>> ReadT5Bias(TensorReader& reader, const std::string& prefix,
                                              const RegionShape& shape, int num_heads,
                                              float scale) {
  const T5Buckets buckets = T5BucketsFor(shape.window, shape.extension(), /*is_causal=*/false);
  const std::vector<float> embedding = reader.Vector(
      prefix + "rel_pos_bias.relative_attention_bias.weight", {buckets.num_buckets, num_heads});
  if (!reader.status().ok()) return reader.status();
  const int power = shape.is_2d ? 2 : 1;
  const auto places = [&](int side) { return power == 2 ? side * side : side; };
  return T5Bias(embedding, num_heads, scale, buckets, places(shape.window),
                places(shape.window + 2 * shape.extension()));
}

struct Landmarks {
  const float* k_bar = nullptr;
  const float* beta = nullptr;
};

// That all of a layer's tensors which would change its results have a place.
void CheckEvaAttentionTensors(TensorReader& reader, const std::string& prefix,
                              const EvaAttentionConfig& config) {
  const auto check = [&](const char* name, bool has_place, const char* key) {
    if (!has_place) reader.RequireAbsent(prefix + name, key);
  };
  check("local_relative_position_bias_table", config.has_map_bias, "use_rpe");
  check("rel_pos_bias.relative_attention_bias.weight", config.has_t5_bias, "use_t5_rpe");
  check("adaptive_mu_q.0.weight", config.has_map_q(), "adaptive_proj");
  check("adaptive_mu_q.1.weight", config.has_map_q() && config.has_norm(), "adaptive_proj");
  check("adaptive_mu_k.1.weight", config.has_norm(), "adaptive_proj");
}

// From the rows of `qkv`; softmax attention has none.
absl::StatusOr<Landmarks> MakeLandmarks(const EvaAttention& attention,
                                        std::span<const RegionItem> items, const float* qkv,
                                        AttentionBuffers& buffers, WorkerPool& workers) {
  const int64_t size = attention.size();
  int64_t num_landmarks = 0;
  for (const RegionItem& item : items) num_landmarks += item.regions->num_chunks;
  float* k_bar = buffers.k_bar.Get(num_landmarks * size);
  float* beta = buffers.beta.Get(num_landmarks * size);
  if (num_landmarks == 0) return Landmarks{k_bar, beta};
  absl::Status status = LandmarksCpu({.items = items,
                                      .num_heads = attention.num_heads,
                                      .head_dim = attention.head_dim,
                                      .scale = attention.scale(),
                                      .q = qkv,
                                      .k = qkv + size,
                                      .v = qkv + 2 * size,
                                      .stride = 3 * size,
                                      .map_q = attention.map_q.map(),
                                      .map_k = attention.map_k.map(),
                                      .k_bar = k_bar,
                                      .beta = beta},
                                     workers);
  if (!status.ok()) return status;
  return Landmarks{k_bar, beta};
}

}  // namespace

RegionShape EvaAttentionConfig::RegionsOf(int height, int width) const {
  return {.height = height,
          .width = width,
          .window = window,
          .num_landmarks = num_landmarks,
          .overlap = overlap,
          .is_2d = is_2d};
}

absl::Status CheckBiases(const char* key, int window, int64_t num_pairs, int num_heads,
                         int num_layers) {
  // The product of all may be too large for an integer.
  const double floats = static_cast<double>(num_pairs) * num_heads * num_layers;
  if (floats <= static_cast<double>(kMaxBiasFloats)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "window_size is ", window, ": the biases of ", key, " for ", num_heads, " heads in ",
      num_layers, " layers would be ", floats, " numbers, allowed are ", kMaxBiasFloats));
}

absl::Status CheckBiases(const EvaAttentionConfig& config, int num_heads, int num_layers) {
  if (!config.has_map_bias && !config.has_t5_bias) return absl::OkStatus();
  const RegionShape shape = config.RegionsOf(1, 1);
  const int64_t queries = shape.window, keys = shape.window + 2 * shape.extension();
  return CheckBiases(config.has_map_bias ? "use_rpe" : "use_t5_rpe", config.window,
                     config.is_2d ? queries * queries * keys * keys : queries * keys, num_heads,
                     num_layers);
}

absl::StatusOr<EvaAttentionConfig> ReadEvaAttentionConfig(const nlohmann::json& attn,
                                                          const std::string& where) {
  JsonFields fields(attn, where);
  EvaAttentionConfig config;
  config.window = static_cast<int>(fields.Integer("window_size", {}, 1, kMaxSide));
  config.num_landmarks = static_cast<int>(fields.Integer("num_landmarks", {}, 1, kMaxLandmarks));
  config.overlap = fields.Boolean("overlap_window", false);
  config.is_2d = fields.Boolean("attn_2d", false);
  config.has_map_bias = fields.Boolean("use_rpe", false);
  config.has_t5_bias = fields.Boolean("use_t5_rpe", false);
  config.proj = ReadProj(fields);
  if (config.has_map_bias && config.has_t5_bias) {
    fields.Fail("use_t5_rpe", "false, as use_rpe is true");
  }
  if (!fields.status().ok()) return fields.status();
  return config;
}

float EvaAttention::scale() const { return 1.f / std::sqrt(static_cast<float>(head_dim)); }

AdaptiveMap AdaptiveLayer::map() const {
  if (weight.empty()) return {};
  return {.weight = &weight.front(),
          .bias = bias.data(),
          .norm_weight = norm.weight.empty() ? nullptr : norm.weight.data(),
          .norm_bias = norm.bias.empty() ? nullptr : norm.bias.data()};
}

AdaptiveLayer ReadAdaptiveLayer(TensorReader& reader, const std::string& prefix, int head_dim,
                                bool has_norm) {
  AdaptiveLayer layer;
  // Small, and its sums decide what a landmark stands for: never rounded.
  LinearLayer linear = ReadLinear(reader, prefix + "0.", {head_dim, head_dim}, DType::kFloat32);
  layer.bias = std::move(linear.bias);
  layer.weight.push_back(std::move(linear.weight));
  if (has_norm) layer.norm = ReadNorm(reader, prefix + "1.", head_dim, kAdaptiveNormEps);
  return layer;
}

int64_t Bytes(const AdaptiveLayer& layer) {
  int64_t bytes = static_cast<int64_t>(layer.bias.size() * sizeof(float)) + Bytes(layer.norm);
  for (const PackedWeight& weight : layer.weight) bytes += weight.bytes();
  return bytes;
}

absl::StatusOr<EvaAttention> ReadEvaAttention(TensorReader& reader, const std::string& prefix,
                                              const EvaAttentionConfig& config, int num_heads,
                                              int size, DType dtype, bool has_qkv_bias) {
  CheckEvaAttentionTensors(reader, prefix, config);
  EvaAttention attention =
      ReadSoftmaxAttention(reader, prefix, num_heads, size, dtype, has_qkv_bias);
  const int head_dim = attention.head_dim;
  const auto read_map = [&](const char* name) {
    return ReadAdaptiveLayer(reader, prefix + name, head_dim, config.has_norm());
  };
  if (config.has_map_q()) attention.map_q = read_map("adaptive_mu_q.");
  attention.map_k = read_map("adaptive_mu_k.");
  absl::StatusOr<std::vector<float>> bias = std::vector<float>();
  const RegionShape shape = config.RegionsOf(1, 1);
  if (config.has_map_bias) bias = ReadMapBias(reader, prefix, shape, num_heads);
  if (config.has_t5_bias) {
    bias =
        ReadT5Bias(reader, prefix, shape, num_heads, 1.f / std::sqrt(static_cast<float>(head_dim)));
  }
  if (!reader.status().ok()) return reader.status();
  if (!bias.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(prefix, "bias: \"", config.has_t5_bias ? "use_t5_rpe" : "use_rpe",
                     "\" is true, which \"window_size\" ", config.window,
                     " does not allow: ", bias.status().message()));
  }
  attention.bias = *std::move(bias);
  return attention;
}

EvaAttention ReadSoftmaxAttention(TensorReader& reader, const std::string& prefix, int num_heads,
                                  int size, DType dtype, bool has_qkv_bias) {
  EvaAttention attention{.num_heads = num_heads, .head_dim = size / num_heads};
  if (!has_qkv_bias) reader.RequireAbsent(prefix + "qkv.bias", "qkv_bias");
  attention.qkv = ReadLinear(reader, prefix + "qkv.", {3 * size, size}, dtype, has_qkv_bias);
  attention.proj = ReadLinear(reader, prefix + "proj.", {size, size}, dtype);
  return attention;
}

absl::Status AddAttention(const EvaAttention& attention, std::span<const RegionItem> items,
                          const float* x, int rows, float* residual, AttentionBuffers& buffers,
                          WorkerPool& workers) {
  const int64_t size = attention.size();
  float* qkv = buffers.qkv.Get(rows * 3 * size);  // a row is [q | k | v]
  float* out = buffers.out.Get(rows * size);
  Apply(attention.qkv, x, rows, qkv, workers);
  absl::StatusOr<Landmarks> landmarks = MakeLandmarks(attention, items, qkv, buffers, workers);
  if (!landmarks.ok()) return landmarks.status();
  absl::Status status =
      WindowAttendCpu({.items = items,
                       .num_heads = attention.num_heads,
                       .head_dim = attention.head_dim,
                       .scale = attention.scale(),
                       .dtype = attention.qkv.weight.dtype(),
                       .q = qkv,
                       .k = qkv + size,
                       .v = qkv + 2 * size,
                       .stride = 3 * size,
                       .k_bar = landmarks->k_bar,
                       .beta = landmarks->beta,
                       .bias = attention.bias.empty() ? nullptr : attention.bias.data(),
                       .out = out,
                       .out_stride = size},
                      workers);
  if (!status.ok()) return status;
  Apply(attention.proj, out, rows, residual, workers, /*accumulate=*/true);
  return absl::OkStatus();
}

int64_t Bytes(const EvaAttention& attention) {
  return Bytes(attention.qkv) + Bytes(attention.proj) + Bytes(attention.map_q) +
         Bytes(attention.map_k) + static_cast<int64_t>(attention.bias.size() * sizeof(float));
}

}  // namespace evaserve
