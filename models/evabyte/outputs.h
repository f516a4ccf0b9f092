#pragma once

#include <span>
#include <vector>

#include "models/evabyte/backend.h"
#include "models/evabyte/config.h"
#include "models/model.h"

namespace evaserve {

// What a step's items ask for. Only the rows that somebody needs pass the final norm, and only
// those of which a next token is wanted pass the output matrix, of which one head's part suffices
// for that. Not thread-safe.
class EvaByteOutputs {
 public:
  // What it gets by reference must outlive it.
  EvaByteOutputs(const EvaByteConfig& config, EvaByteBackend& backend)
      : config_(config), backend_(backend) {}

  // After the backend has run the items' rows. Draws with the items' samplers.
  absl::StatusOr<std::vector<StepResult>> Compute(std::span<const StepItem> items);

 private:
  // The rows of one item in outputs_.
  struct Rows {
    int begin = 0;
    int count = 0;
  };

  void ChooseRows(std::span<const StepItem> items);
  absl::StatusOr<StepResult> Result(const StepItem& item, Rows rows);
  std::vector<float> TargetLogprobs(const StepItem& item, Rows rows) const;
  std::vector<float> HiddenSum(Rows rows) const;

  const EvaByteConfig& config_;
  EvaByteBackend& backend_;

  std::vector<Rows> rows_;    // by item
  std::vector<int> sources_;  // the rows of the batch that are needed
  int num_logit_rows_ = 0;    // the first of them
  EvaByteBackend::Outputs outputs_;
};

}  // namespace evaserve
