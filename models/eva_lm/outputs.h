#pragma once

#include <span>
#include <vector>

#include "models/eva_lm/word_tables.h"
#include "models/float_buffer.h"
#include "models/model.h"

namespace evaserve {

// What a step's items ask for. The whole vocabulary is computed only for rows of which a token is
// drawn or all logits are asked; a target's log-probability takes the head and one band. Not
// thread-safe.
class EvaLmOutputs {
 public:
  // What it gets by reference must outlive it.
  EvaLmOutputs(const EvaLmConfig& config, WordTables& words, WorkerPool& workers)
      : size_(config.size), vocab_size_(config.vocab_size), words_(words), workers_(workers) {}

  // From the items' rows of hidden, one after the other: [tokens, size]. Draws with the items'
  // samplers. Logits are log-probabilities.
  std::vector<StepResult> Compute(std::span<const StepItem> items, const float* hidden);

 private:
  void Sample(std::span<const StepItem> items, std::vector<StepResult>& results);
  void ScoreTargets(std::span<const StepItem> items, std::vector<StepResult>& results);
  void FillHidden(const StepItem& item, const float* rows, StepResult& result);
  // The rows of hidden_ one after the other.
  const float* Gather(std::span<const int> rows);

  const int size_;
  const int vocab_size_;
  WordTables& words_;
  WorkerPool& workers_;
  const float* hidden_ = nullptr;
  FloatBuffer gathered_, logprobs_;
};

}  // namespace evaserve
