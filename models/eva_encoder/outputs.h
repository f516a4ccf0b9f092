#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/eva_encoder/masks.h"
#include "models/eva_encoder/network.h"
#include "models/eva_encoder/rows.h"
#include "models/sampler.h"
#include "models/tensor_model.h"

namespace evaserve {

// A request that an encoder answers.
struct EncoderTask {
  EncoderRows rows;
  MaskedPlaces masks;
  TensorModel::Outputs outputs;       // an output that nobody wants has no shape
  std::vector<TokenLogprob> guesses;  // [rows, masks.columns, masks.most]; token -1: none
};

// One row of a task, which outlives it.
struct EncoderRow {
  EncoderTask* task = nullptr;
  int64_t index = 0;
  std::span<const int32_t> tokens;
};

std::vector<TensorSpec> EncoderOutputSpecs(const EvaEncoderConfig& config);

// Gives the outputs that `inputs` wants their shapes.
void ShapeOutputs(const TensorModel::Inputs& inputs, const EvaEncoderConfig& config,
                  EncoderTask& task);

// What they take when they have their memory.
int64_t OutputBytes(const EncoderTask& task);

// Gives them, and the guesses if somebody wants them, their memory, which says that there is
// nothing anywhere.
void AllocateOutputs(EncoderTask& task);

// Writes the guesses to their outputs, at the end.
void WriteGuesses(EncoderTask& task);

// Writes what a pass through the layers gives to the outputs and guesses of its rows, which have
// their memory. Not thread-safe.
class EncoderOutputs {
 public:
  explicit EncoderOutputs(EvaEncoderNetwork& network) : network_(network) {}

  // `hidden` [tokens, size] is that of all tokens of `rows`.
  void Store(std::span<const EncoderRow> rows, const float* hidden);

 private:
  // A token that goes through the masked-LM head.
  struct HeadRow {
    const float* hidden = nullptr;
    float* logits = nullptr;          // in the output; null: not wanted
    std::span<TokenLogprob> guesses;  // of the task; none: not wanted
  };

  void StoreStates(const EncoderRow& row, const float* hidden);
  void AppendLogits(const EncoderRow& row, const float* hidden, std::vector<HeadRow>& to) const;
  void AppendMasks(const EncoderRow& row, const float* hidden, std::vector<HeadRow>& to) const;
  void RunHead(std::span<const HeadRow> rows);
  void Use(std::span<const float> logits, const HeadRow& row);

  EvaEncoderNetwork& network_;
  FloatBuffer hidden_, logits_;
  std::vector<TokenId> ranking_;
};

}  // namespace evaserve
