#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/eva_encoder/masked_text.h"
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

// The outputs of an encoder, whose `text` is null if it has none. Not thread-safe, but for what is
// const.
class EncoderOutputs {
 public:
  EncoderOutputs(EvaEncoderNetwork& network, const MaskedText* text)
      : network_(network), text_(text) {}

  std::vector<TensorSpec> specs() const;

  // Gives the outputs of a task that `inputs` wants their shapes.
  void Shape(const TensorModel::Inputs& inputs, EncoderTask& task) const;

  // What they take at most, when they are written.
  int64_t MaxBytes(const EncoderTask& task) const;

  // Gives them and the guesses, if somebody wants them, their memory, which says that there is
  // nothing anywhere.
  void Allocate(EncoderTask& task) const;

  // Writes what a pass through the layers gives for its rows: `hidden` [tokens, size].
  void Store(std::span<const EncoderRow> rows, const float* hidden);

  // Writes the guesses to their outputs, at the end.
  void WriteGuesses(EncoderTask& task) const;

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

  const EvaEncoderConfig& config() const { return network_.config(); }

  EvaEncoderNetwork& network_;
  const MaskedText* const text_;
  FloatBuffer hidden_, logits_;
  std::vector<TokenId> ranking_;
};

}  // namespace evaserve
