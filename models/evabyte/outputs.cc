#include "models/evabyte/outputs.h"

#include <algorithm>
#include <utility>

#include "models/token_filters.h"

namespace evaserve {
namespace {

bool NeedsNextToken(const StepItem& item) {
  return item.sampler != nullptr || !item.targets.empty();
}

bool NeedsEveryRow(const StepItem& item) {
  return !item.targets.empty() || item.sum_hidden || item.all_hidden || item.all_logits;
}

bool NeedsHidden(const StepItem& item) { return item.sum_hidden || item.all_hidden; }

}  // namespace

absl::StatusOr<std::vector<StepResult>> EvaByteOutputs::Compute(std::span<const StepItem> items) {
  ChooseRows(items);
  absl::StatusOr<EvaByteBackend::Outputs> outputs = backend_.ComputeOutputs(
      sources_, num_logit_rows_, std::any_of(items.begin(), items.end(), NeedsHidden));
  if (!outputs.ok()) return outputs.status();
  outputs_ = *outputs;
  std::vector<StepResult> results;
  results.reserve(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    absl::StatusOr<StepResult> result = Result(items[i], rows_[i]);
    if (!result.ok()) return result.status();
    results.push_back(*std::move(result));
  }
  return results;
}

void EvaByteOutputs::ChooseRows(std::span<const StepItem> items) {
  rows_.assign(items.size(), {});
  sources_.clear();
  // Rows that need logits come first, so that one product makes all of them.
  for (const bool next_token : {true, false}) {
    int end = 0;  // of the item's rows
    for (size_t i = 0; i < items.size(); ++i) {
      const int num_tokens = static_cast<int>(items[i].tokens.size());
      end += num_tokens;
      if (NeedsNextToken(items[i]) != next_token) continue;
      if (!next_token && !NeedsEveryRow(items[i])) continue;
      const int count = NeedsEveryRow(items[i]) ? num_tokens : 1;
      rows_[i] = {static_cast<int>(sources_.size()), count};
      for (int row = end - count; row < end; ++row) sources_.push_back(row);
    }
    if (next_token) num_logit_rows_ = static_cast<int>(sources_.size());
  }
}

absl::StatusOr<StepResult> EvaByteOutputs::Result(const StepItem& item, Rows rows) {
  const size_t hidden = config_.hidden_size, vocab = config_.vocab_size;
  StepResult result;
  if (item.sampler != nullptr) {
    result.sampled =
        item.sampler->Sample({outputs_.logits + (rows.begin + rows.count - 1) * vocab, vocab});
  }
  if (!item.targets.empty()) result.target_logprobs = TargetLogprobs(item, rows);
  if (item.sum_hidden) result.hidden_sum = HiddenSum(rows);
  if (item.all_hidden) {
    const float* first = outputs_.hidden + rows.begin * hidden;
    result.hidden.assign(first, first + rows.count * hidden);
  }
  if (item.all_logits) {
    result.logits.resize(rows.count * config_.num_pred_heads * vocab);
    absl::Status status = backend_.ComputeAllLogits(rows.begin, rows.count, result.logits.data());
    if (!status.ok()) return status;
  }
  return result;
}

std::vector<float> EvaByteOutputs::TargetLogprobs(const StepItem& item, Rows rows) const {
  const size_t vocab = config_.vocab_size;
  std::vector<float> logprobs;
  logprobs.reserve(rows.count);
  for (int i = 0; i < rows.count; ++i) {
    const std::span<const float> logits(outputs_.logits + (rows.begin + i) * vocab, vocab);
    logprobs.push_back(logits[item.targets[i]] - LogSumExp(logits));
  }
  return logprobs;
}

std::vector<float> EvaByteOutputs::HiddenSum(Rows rows) const {
  const size_t hidden = config_.hidden_size;
  std::vector<float> sum(hidden, 0.f);
  for (int i = 0; i < rows.count; ++i) {
    const float* row = outputs_.hidden + (rows.begin + i) * hidden;
    for (size_t j = 0; j < hidden; ++j) sum[j] += row[j];
  }
  return sum;
}

}  // namespace evaserve
