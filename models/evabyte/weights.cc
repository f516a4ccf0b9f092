#include "models/evabyte/weights.h"

#include <utility>

namespace evaserve {

EvaByteWeights PackEvaByteWeights(EvaByteTensors tensors, DType dtype) {
  EvaByteWeights weights;
  weights.num_parameters = tensors.num_parameters;
  weights.bytes = tensors.vector_bytes;
  const auto pack = [&](const StackedMatrix& matrix) {
    PackedWeight packed = PackedWeight::Pack(matrix, dtype);
    weights.bytes += packed.bytes();
    return packed;
  };
  weights.embedding = std::move(tensors.embedding);
  for (EvaByteLayerTensors& layer : tensors.layers) {
    weights.layers.push_back({.attention_norm = std::move(layer.attention_norm),
                              .mlp_norm = std::move(layer.mlp_norm),
                              .mu = std::move(layer.mu),
                              .phi = std::move(layer.phi),
                              .qkv = pack(layer.qkv),
                              .out = pack(layer.out),
                              .gate_up = pack(layer.gate_up),
                              .down = pack(layer.down)});
  }
  weights.final_norm = std::move(tensors.final_norm);
  weights.lm_head = pack(tensors.lm_head);
  return weights;
}

}  // namespace evaserve
