#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/eva_encoder/network.h"
#include "models/eva_encoder/rows.h"
#include "models/tensor_model.h"

namespace evaserve {

// A request that an encoder answers.
struct EncoderTask {
  EncoderRows rows;
  TensorModel::Outputs outputs;
};

// One row of a task, which outlives it.
struct EncoderRow {
  EncoderTask* task = nullptr;
  int64_t index = 0;
  std::span<const int32_t> tokens;
};

std::vector<TensorSpec> EncoderOutputSpecs(const EvaEncoderConfig& config);

// What the outputs for `rows` are like, in the order of their specs.
std::vector<std::vector<int64_t>> EncoderOutputShapes(const EncoderRows& rows,
                                                      const EvaEncoderConfig& config);

// Writes what a pass through the layers gives to the outputs of its rows. Not thread-safe.
class EncoderOutputs {
 public:
  explicit EncoderOutputs(EvaEncoderNetwork& network) : network_(network) {}

  // `hidden` [tokens, size] is that of all tokens of `rows`. The rows' outputs have their shapes,
  // and memory that is zero.
  void Store(std::span<const EncoderRow> rows, const float* hidden);

 private:
  void StoreLogits(std::span<const EncoderRow> rows, const float* hidden);

  EvaEncoderNetwork& network_;
  FloatBuffer logits_;
};

}  // namespace evaserve
