#include "models/evabyte/tensors.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/io/tensor_reader.h"

namespace evaserve {
namespace {

std::vector<float> ReadNorm(TensorReader& reader, const std::string& name,
                            const EvaByteConfig& config) {
  std::vector<float> weight = reader.Vector(name, {config.hidden_size});
  const float offset = config.norm_unit_offset ? 1.f : 0.f;
  for (float& w : weight) w += offset;
  return weight;
}

StackedMatrix ReadMatrix(TensorReader& reader, const std::vector<std::string>& names, int64_t rows,
                         int64_t columns) {
  StackedMatrix parts;
  parts.reserve(names.size());
  for (const std::string& name : names) parts.push_back(reader.View(name, {rows, columns}));
  return parts;
}

EvaByteLayerTensors ReadLayer(TensorReader& reader, const EvaByteConfig& config,
                              const std::string& prefix) {
  const int64_t hidden = config.hidden_size, inter = config.intermediate_size;
  const std::vector<int64_t> head_vectors = {1, config.num_heads, 1, 1, config.head_dim()};
  const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
  EvaByteLayerTensors layer;
  layer.attention_norm = ReadNorm(reader, prefix + "input_layernorm.weight", config);
  layer.mlp_norm = ReadNorm(reader, prefix + "post_attention_layernorm.weight", config);
  layer.mu = reader.Vector(attention + "adaptive_mu_k", head_vectors);
  layer.phi = reader.Vector(attention + "adaptive_phi", head_vectors);
  layer.qkv = ReadMatrix(
      reader,
      {attention + "q_proj.weight", attention + "k_proj.weight", attention + "v_proj.weight"},
      hidden, hidden);
  layer.out = ReadMatrix(reader, {attention + "o_proj.weight"}, hidden, hidden);
  layer.gate_up =
      ReadMatrix(reader, {mlp + "gate_proj.weight", mlp + "up_proj.weight"}, inter, hidden);
  layer.down = ReadMatrix(reader, {mlp + "down_proj.weight"}, hidden, inter);
  return layer;
}

}  // namespace

absl::StatusOr<EvaByteTensors> ReadEvaByteTensors(const Checkpoint& checkpoint,
                                                  const EvaByteConfig& config) {
  TensorReader reader(checkpoint);
  EvaByteTensors tensors;
  tensors.embedding =
      reader.Vector("model.embed_tokens.weight", {config.vocab_size, config.hidden_size});
  for (int i = 0; i < config.num_layers; ++i) {
    tensors.layers.push_back(ReadLayer(reader, config, absl::StrCat("model.layers.", i, ".")));
    if (!reader.status().ok()) return reader.status();
  }
  tensors.final_norm = ReadNorm(reader, "model.norm.weight", config);
  tensors.lm_head =
      ReadMatrix(reader, {"lm_head.weight"}, int64_t{config.num_pred_heads} * config.vocab_size,
                 config.hidden_size);
  if (!reader.status().ok()) return reader.status();
  absl::Status status = CheckNoFurtherLayer(checkpoint, "model.layers.", config.num_layers);
  if (!status.ok()) return status;
  tensors.num_parameters = reader.num_parameters();
  tensors.vector_bytes = reader.vector_bytes();
  return tensors;
}

}  // namespace evaserve
