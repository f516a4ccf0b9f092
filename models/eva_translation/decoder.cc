#include "models/eva_translation/decoder.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "absl/strings/str_cat.h"
#include "models/text/dictionary.h"

namespace evaserve {
namespace {

TranslationDecoderLayer ReadLayer(TensorReader& reader, const std::string& prefix,
                                  const EvaTranslationConfig& config) {
  const TranslationDecoderConfig& decoder = config.decoder;
  const int64_t size = decoder.size, mlp_size = decoder.mlp_size;
  const auto linear = [&](const std::vector<std::string>& names, int64_t in) {
    std::vector<std::string> prefixes;
    for (const std::string& name : names) prefixes.push_back(absl::StrCat(prefix, name, "."));
    return ReadStackedLinear(reader, prefixes, {size, in}, config.dtype);
  };
  const auto norm = [&](const char* name) {
    return ReadNorm(reader, absl::StrCat(prefix, name, "."), decoder.size, decoder.norm_eps);
  };
  TranslationDecoderLayer layer;
  layer.self_qkv = linear({"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}, size);
  layer.self_out = linear({"self_attn.out_proj"}, size);
  layer.self_norm = norm("self_attn_layer_norm");
  layer.cross_q = linear({"encoder_attn.q_proj"}, size);
  layer.cross_kv = linear({"encoder_attn.k_proj", "encoder_attn.v_proj"}, config.encoder.size);
  layer.cross_out = linear({"encoder_attn.out_proj"}, size);
  layer.cross_norm = norm("encoder_attn_layer_norm");
  layer.mlp.activation = decoder.activation;
  layer.mlp.fc1 = ReadLinear(reader, prefix + "fc1.", {mlp_size, size}, config.dtype);
  layer.mlp.fc2 = ReadLinear(reader, prefix + "fc2.", {size, mlp_size}, config.dtype);
  layer.mlp_norm = norm("final_layer_norm");
  return layer;
}

// The embeddings as they are in the checkpoint.
std::vector<float> ReadEmbedding(TensorReader& encoder, TensorReader& decoder,
                                 const EvaTranslationConfig& config) {
  TensorReader& reader = config.ties_all_embeddings ? encoder : decoder;
  return reader.Vector("embed_tokens.weight", {config.decoder.vocab_size, config.decoder.size});
}

}  // namespace

absl::StatusOr<TranslationDecoderWeights> ReadTranslationDecoderWeights(
    TensorReader& encoder, TensorReader& decoder, const EvaTranslationConfig& config) {
  const int64_t size = config.decoder.size, vocab_size = config.decoder.vocab_size;
  TranslationDecoderWeights weights;
  weights.embedding = ReadEmbedding(encoder, decoder, config);
  if (!encoder.status().ok()) return encoder.status();
  if (!config.ties_output) {
    weights.output = ReadLinear(decoder, "output_projection.", {vocab_size, size}, config.dtype,
                                /*has_bias=*/false);
  } else if (decoder.status().ok()) {
    const WeightView tied = {weights.embedding.data(), DType::kFloat32, vocab_size, size};
    weights.output.weight = PackedWeight::Pack({&tied, 1}, config.dtype);
  }
  if (!decoder.status().ok()) return decoder.status();
  for (float& value : weights.embedding) value *= config.decoder.embed_scale;
  weights.positions = ReadPositions(decoder, {.are_learned = config.decoder.has_learned_positions,
                                              .num_positions = config.decoder.max_tokens,
                                              .size = config.decoder.size,
                                              .padding_idx = Dictionary::kPad});
  if (config.decoder.has_embedding_norm) {
    weights.embedding_norm =
        ReadNorm(decoder, "layernorm_embedding.", config.decoder.size, config.decoder.norm_eps);
  }
  for (int i = 0; i < config.decoder.num_layers && decoder.status().ok(); ++i) {
    weights.layers.push_back(ReadLayer(decoder, absl::StrCat("layers.", i, "."), config));
  }
  if (config.decoder.normalizes_before) {
    weights.norm = ReadNorm(decoder, "layer_norm.", config.decoder.size, config.decoder.norm_eps);
  }
  if (!decoder.status().ok()) return decoder.status();
  return weights;
}

int64_t Bytes(const TranslationDecoderWeights& weights) {
  int64_t bytes =
      static_cast<int64_t>((weights.embedding.size() + weights.positions.size()) * sizeof(float)) +
      Bytes(weights.embedding_norm) + Bytes(weights.norm) + Bytes(weights.output);
  for (const TranslationDecoderLayer& layer : weights.layers) {
    for (const LinearLayer* linear :
         {&layer.self_qkv, &layer.self_out, &layer.cross_q, &layer.cross_kv, &layer.cross_out,
          &layer.mlp.fc1, &layer.mlp.fc2}) {
      bytes += Bytes(*linear);
    }
    for (const NormLayer* norm : {&layer.self_norm, &layer.cross_norm, &layer.mlp_norm}) {
      bytes += Bytes(*norm);
    }
  }
  return bytes;
}

absl::StatusOr<std::unique_ptr<TranslationDecoder>> TranslationDecoder::Create(
    const EvaTranslationConfig& config, TranslationDecoderWeights weights, int num_slots,
    WorkerPool& workers) {
  absl::StatusOr<std::unique_ptr<SlotMemory>> own_kv =
      SlotMemory::Create({.num_slots = num_slots,
                          .num_layers = config.decoder.num_layers,
                          .row_floats = 2 * config.decoder.size});
  if (!own_kv.ok()) return own_kv.status();
  return std::unique_ptr<TranslationDecoder>(
      new TranslationDecoder(config, std::move(weights), *std::move(own_kv), workers));
}

TranslationDecoder::TranslationDecoder(const EvaTranslationConfig& config,
                                       TranslationDecoderWeights weights,
                                       std::unique_ptr<SlotMemory> own_kv, WorkerPool& workers)
    : config_(config.decoder),
      dtype_(config.dtype),
      weights_(std::move(weights)),
      workers_(workers),
      source_kv_(weights_.layers.size()),
      own_kv_(std::move(own_kv)) {}

void TranslationDecoder::SetSources(const float* encoded, std::span<const int> lengths) {
  const int total = std::accumulate(lengths.begin(), lengths.end(), 0);
  source_tokens_.resize(total);
  std::iota(source_tokens_.begin(), source_tokens_.end(), 0);
  sources_.clear();
  size_t begin = 0;
  for (const int length : lengths) {
    sources_.push_back(std::span(source_tokens_).subspan(begin, length));
    begin += length;
  }
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    float* kv = source_kv_[i].Get(int64_t{total} * 2 * config_.size);
    Apply(weights_.layers[i].cross_kv, encoded, total, kv, workers_);
  }
}

absl::Status TranslationDecoder::Step(std::span<const DecoderRow> rows, float* logits) {
  const int num_rows = static_cast<int>(rows.size());
  if (absl::Status status = UseSlots(rows); !status.ok()) return status;
  Items own, sources;
  for (int i = 0; i < num_rows; ++i) {
    own.push_back({i, 1, rows[i].slots});
    if (i > 0 && rows[i].source == rows[i - 1].source) {
      ++sources.back().num_queries;
    } else {
      sources.push_back({i, 1, sources_[rows[i].source]});
    }
  }
  float* x = x_.Get(int64_t{num_rows} * config_.size);
  Embed(rows, x);
  if (config_.has_embedding_norm) Apply(weights_.embedding_norm, x, num_rows, x, workers_);
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    absl::Status status = RunLayer(i, rows, own, sources, x);
    if (!status.ok()) return status;
  }
  if (config_.normalizes_before) Apply(weights_.norm, x, num_rows, x, workers_);
  Apply(weights_.output, x, num_rows, logits, workers_);
  return absl::OkStatus();
}

void TranslationDecoder::Embed(std::span<const DecoderRow> rows, float* x) const {
  const int64_t size = config_.size;
  for (const DecoderRow& row : rows) {
    const float* embedding = weights_.embedding.data() + row.token * size;
    const float* position = weights_.positions.data() + (std::ssize(row.slots) - 1) * size;
    for (int64_t j = 0; j < size; ++j) x[j] = embedding[j] + position[j];
    x += size;
  }
}

absl::Status TranslationDecoder::UseSlots(std::span<const DecoderRow> rows) {
  int32_t last = -1;
  for (const DecoderRow& row : rows) last = std::max(last, row.slots.back());
  if (last >= own_kv_->num_slots()) {
    return absl::InvalidArgumentError(
        absl::StrCat("slot ", last, ", allowed are 0 to ", own_kv_->num_slots() - 1));
  }
  own_kv_->Use(last + 1);
  return absl::OkStatus();
}

absl::Status TranslationDecoder::RunLayer(size_t index, std::span<const DecoderRow> rows,
                                          const Items& own, const Items& sources, float* x) {
  const TranslationDecoderLayer& layer = weights_.layers[index];
  const int num_rows = static_cast<int>(rows.size());
  const bool before = config_.normalizes_before;
  // What a sublayer reads; without a norm before it that is the residual stream itself.
  float* in = before ? normed_.Get(int64_t{num_rows} * config_.size) : x;
  if (before) Apply(layer.self_norm, x, num_rows, in, workers_);
  absl::Status status = AddSelfAttention(index, rows, own, in, x);
  if (!status.ok()) return status;
  Apply(before ? layer.cross_norm : layer.self_norm, x, num_rows, in, workers_);
  status = AddCrossAttention(index, num_rows, sources, in, x);
  if (!status.ok()) return status;
  Apply(before ? layer.mlp_norm : layer.cross_norm, x, num_rows, in, workers_);
  AddMlp(layer.mlp, in, num_rows, hidden_.Get(MlpScratch(layer.mlp, num_rows)), x, workers_);
  if (!before) Apply(layer.mlp_norm, x, num_rows, x, workers_);
  return absl::OkStatus();
}

absl::Status TranslationDecoder::AddSelfAttention(size_t index, std::span<const DecoderRow> rows,
                                                  const Items& own, const float* x,
                                                  float* residual) {
  const TranslationDecoderLayer& layer = weights_.layers[index];
  const int64_t size = config_.size;
  const int num_rows = static_cast<int>(rows.size());
  float* qkv = qkv_.Get(num_rows * 3 * size);  // a row is [q | k | v]
  Apply(layer.self_qkv, x, num_rows, qkv, workers_);
  float* kv = own_kv_->layer(static_cast<int>(index));
  for (int i = 0; i < num_rows; ++i) {
    std::copy_n(qkv + (3 * i + 1) * size, 2 * size, kv + rows[i].slots.back() * 2 * size);
  }
  ListAttendParams params = AttendParams(own, num_rows);
  params.q = qkv;
  params.q_stride = 3 * size;
  params.num_keys = own_kv_->end();
  params.k = kv;
  params.v = kv + size;
  params.out = attended_.Get(num_rows * size);
  if (absl::Status status = ListAttendCpu(params, workers_); !status.ok()) return status;
  Apply(layer.self_out, params.out, num_rows, residual, workers_, /*accumulate=*/true);
  return absl::OkStatus();
}

absl::Status TranslationDecoder::AddCrossAttention(size_t index, int num_rows, const Items& sources,
                                                   const float* x, float* residual) {
  const TranslationDecoderLayer& layer = weights_.layers[index];
  const int64_t size = config_.size;
  float* q = qkv_.Get(num_rows * size);
  Apply(layer.cross_q, x, num_rows, q, workers_);
  const float* kv = source_kv_[index].Get(0);
  ListAttendParams params = AttendParams(sources, num_rows);
  params.q = q;
  params.q_stride = size;
  params.num_keys = static_cast<int>(source_tokens_.size());
  params.k = kv;
  params.v = kv + size;
  params.out = attended_.Get(num_rows * size);
  if (absl::Status status = ListAttendCpu(params, workers_); !status.ok()) return status;
  Apply(layer.cross_out, params.out, num_rows, residual, workers_, /*accumulate=*/true);
  return absl::OkStatus();
}

ListAttendParams TranslationDecoder::AttendParams(const Items& items, int num_rows) const {
  const auto head_dim = static_cast<float>(config_.head_dim());
  return {.items = items,
          .num_heads = config_.num_heads,
          .head_dim = config_.head_dim(),
          .scale = 1.f / std::sqrt(head_dim),
          .dtype = dtype_,
          .num_queries = num_rows,
          .kv_stride = int64_t{2} * config_.size,
          .out_stride = config_.size};
}

}  // namespace evaserve
