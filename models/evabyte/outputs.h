#pragma once

#include <span>
#include <vector>

#include "kernels/worker_pool.h"
#include "models/evabyte/config.h"
#include "models/evabyte/weights.h"
#include "models/float_buffer.h"
#include "models/model.h"

namespace evaserve {

// What a step's items ask for, from the residual stream after the last layer. Only the rows that
// somebody needs pass the final norm, and only those of which a next token is wanted pass the
// output matrix, of which one head's part suffices for that. Not thread-safe.
class EvaByteOutputs {
 public:
  // What it gets by reference must outlive it.
  EvaByteOutputs(const EvaByteConfig& config, const EvaByteWeights& weights, WorkerPool& workers)
      : config_(config), weights_(weights), workers_(workers) {}

  // `residual` is [rows of all items, hidden_size]. Draws with the items' samplers.
  std::vector<StepResult> Compute(std::span<const StepItem> items, const float* residual);

 private:
  // The rows of one item in hidden_ and logits_.
  struct Rows {
    int begin = 0;
    int count = 0;
  };

  void GatherRows(std::span<const StepItem> items, const float* residual);
  void NormRows(int num_rows);
  void ComputeLogits(const float* hidden, int num_rows, int num_heads, float* logits);
  StepResult Result(const StepItem& item, Rows rows);
  std::vector<float> TargetLogprobs(const StepItem& item, Rows rows) const;
  std::vector<float> HiddenSum(Rows rows) const;

  const EvaByteConfig& config_;
  const EvaByteWeights& weights_;
  WorkerPool& workers_;

  std::vector<Rows> rows_;  // by item
  int num_rows_ = 0;
  int num_logit_rows_ = 0;  // the first of them
  FloatBuffer hidden_buffer_, logits_buffer_;
  float* hidden_ = nullptr;  // [num_rows, hidden_size], after the final norm
  float* logits_ = nullptr;  // [num_logit_rows, vocab_size], of the next token
};

}  // namespace evaserve
