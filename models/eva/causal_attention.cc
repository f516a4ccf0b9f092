#include "models/eva/causal_attention.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/relative_bias.h"
#include "models/io/json_fields.h"

namespace evaserve {
namespace {

constexpr int kMaxWindow = 4096;

bool ReadHasNorm(JsonFields& fields) {
  const std::string name = fields.String("adaptive_proj", "qk");
  if (name != "qk" && name != "no-ln") fields.Fail("adaptive_proj", "\"qk\" or \"no-ln\"");
  return name == "qk";
}

absl::StatusOr<std::vector<float>> ReadBias(TensorReader& reader, const std::string& prefix,
                                            const CausalEvaShape& shape, float scale) {
  const T5Buckets buckets = T5BucketsFor(shape.window, shape.extension(), /*is_causal=*/true);
  const std::vector<float> embedding = reader.Vector(
      prefix + "rel_pos_bias.relative_attention_bias.weight", {buckets.num_buckets, 1});
  if (!reader.status().ok()) return reader.status();
  return T5Bias(embedding, /*num_heads=*/1, scale, buckets, shape.window, shape.num_keys());
}

}  // namespace

absl::StatusOr<CausalAttentionConfig> ReadCausalAttentionConfig(const nlohmann::json& attn,
                                                                const std::string& where) {
  JsonFields fields(attn, where);
  CausalAttentionConfig config;
  config.window = static_cast<int>(fields.Integer("window_size", {}, 1, kMaxWindow));
  config.chunk = static_cast<int>(fields.Integer("chunk_size", {}, 1, kMaxWindow));
  config.overlap = fields.Boolean("overlap_window", false);
  config.has_t5_bias = fields.Boolean("use_t5_rpe", false);
  config.has_norm = ReadHasNorm(fields);
  if (!fields.Boolean("causal", true)) fields.Fail("causal", "true");
  // Chunks would be the longer the longer the text is, which is no function of its beginning.
  if (fields.Has("num_chunks")) fields.Fail("num_chunks", "null, since chunk_size counts");
  if (config.window % config.chunk != 0) {
    fields.Fail("window_size", absl::StrCat("a multiple of chunk_size, ", config.chunk));
  }
  if (!fields.status().ok()) return fields.status();
  return config;
}

absl::Status CheckBiases(const CausalAttentionConfig& config, int num_layers) {
  if (!config.has_t5_bias) return absl::OkStatus();
  const CausalEvaShape shape = {.window = config.window, .overlap = config.overlap};
  return CheckBiases("use_t5_rpe", config.window, int64_t{shape.window} * shape.num_keys(),
                     /*num_heads=*/1, num_layers);
}

float CausalAttention::scale() const { return 1.f / std::sqrt(static_cast<float>(shape.head_dim)); }

absl::StatusOr<CausalAttention> ReadCausalAttention(TensorReader& reader, const std::string& prefix,
                                                    const CausalAttentionConfig& config,
                                                    int num_heads, int size, DType dtype) {
  if (!config.has_t5_bias) {
    reader.RequireAbsent(prefix + "rel_pos_bias.relative_attention_bias.weight", "use_t5_rpe");
  }
  if (!config.has_norm) {
    reader.RequireAbsent(prefix + "adaptive_mu_q.1.weight", "adaptive_proj");
    reader.RequireAbsent(prefix + "adaptive_mu_k.1.weight", "adaptive_proj");
  }
  CausalAttention attention;
  attention.shape = {.num_heads = num_heads,
                     .head_dim = size / num_heads,
                     .window = config.window,
                     .chunk = config.chunk,
                     .overlap = config.overlap};
  attention.qkv = ReadStackedLinear(
      reader, {prefix + "q_proj.", prefix + "k_proj.", prefix + "v_proj."}, {size, size}, dtype);
  attention.out = ReadLinear(reader, prefix + "out_proj.", {size, size}, dtype);
  attention.map_q = ReadAdaptiveLayer(reader, prefix + "adaptive_mu_q.", attention.shape.head_dim,
                                      config.has_norm);
  attention.map_k = ReadAdaptiveLayer(reader, prefix + "adaptive_mu_k.", attention.shape.head_dim,
                                      config.has_norm);
  if (config.has_t5_bias) {
    absl::StatusOr<std::vector<float>> bias =
        ReadBias(reader, prefix, attention.shape, attention.scale());
    if (!bias.ok()) return bias.status();
    attention.bias = *std::move(bias);
  }
  if (!reader.status().ok()) return reader.status();
  return attention;
}

int64_t Bytes(const CausalAttention& attention) {
  return Bytes(attention.qkv) + Bytes(attention.out) + Bytes(attention.map_q) +
         Bytes(attention.map_k) + static_cast<int64_t>(attention.bias.size() * sizeof(float));
}

int64_t CausalStateLayout::num_floats() const {
  const int64_t rows = 2 * (int64_t{shape.num_keys()} + max_chunks) + shape.chunk;
  return rows * shape.num_heads * shape.head_dim;
}

CausalEvaState CausalStateLayout::At(float* begin) const {
  const int64_t row = int64_t{shape.num_heads} * shape.head_dim;
  const auto take = [&](int64_t rows) {
    float* part = begin;
    begin += rows * row;
    return part;
  };
  CausalEvaState state;
  state.keys = take(shape.num_keys());
  state.values = take(shape.num_keys());
  state.open_q = take(shape.chunk);
  state.k_bar = take(max_chunks);
  state.beta = take(max_chunks);
  state.max_chunks = max_chunks;
  return state;
}

absl::Status AddCausalAttention(const CausalAttention& attention,
                                std::span<const CausalEvaSequence> sequences, const float* x,
                                int rows, float* residual, AttentionBuffers& buffers,
                                WorkerPool& workers) {
  const int64_t size = attention.size();
  float* qkv = buffers.qkv.Get(rows * 3 * size);  // a row is [q | k | v]
  float* out = buffers.out.Get(rows * size);
  Apply(attention.qkv, x, rows, qkv, workers);
  absl::Status status =
      CausalEvaCpu({.shape = attention.shape,
                    .sequences = sequences,
                    .scale = attention.scale(),
                    .dtype = attention.qkv.weight.dtype(),
                    .q = qkv,
                    .k = qkv + size,
                    .v = qkv + 2 * size,
                    .stride = 3 * size,
                    .map_q = attention.map_q.map(),
                    .map_k = attention.map_k.map(),
                    .mu_scale = 1.f,
                    .bias = attention.bias.empty() ? nullptr : attention.bias.data(),
                    .out = out,
                    .out_stride = size},
                   workers);
  if (!status.ok()) return status;
  Apply(attention.out, out, rows, residual, workers, /*accumulate=*/true);
  return absl::OkStatus();
}

}  // namespace evaserve
