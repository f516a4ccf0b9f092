#include "models/evabyte/outputs.h"

#include <cstring>

#include "kernels/elementwise.h"
#include "kernels/linear.h"
#include "models/token_filters.h"

namespace evaserve {
namespace {

bool NeedsNextToken(const StepItem& item) {
  return item.sampler != nullptr || !item.targets.empty();
}

bool NeedsEveryRow(const StepItem& item) {
  return !item.targets.empty() || item.sum_hidden || item.all_hidden || item.all_logits;
}

}  // namespace

std::vector<StepResult> EvaByteOutputs::Compute(std::span<const StepItem> items,
                                                const float* residual) {
  GatherRows(items, residual);
  NormRows(num_rows_);
  logits_ = logits_buffer_.Get(size_t(num_logit_rows_) * config_.vocab_size);
  ComputeLogits(hidden_, num_logit_rows_, /*num_heads=*/1, logits_);
  std::vector<StepResult> results;
  results.reserve(items.size());
  for (size_t i = 0; i < items.size(); ++i) results.push_back(Result(items[i], rows_[i]));
  return results;
}

void EvaByteOutputs::GatherRows(std::span<const StepItem> items, const float* residual) {
  const size_t hidden = config_.hidden_size;
  size_t all_rows = 0;
  for (const StepItem& item : items) all_rows += item.tokens.size();
  hidden_ = hidden_buffer_.Get(all_rows * hidden);
  rows_.assign(items.size(), {});
  num_rows_ = 0;
  // Rows that need logits come first, so that one product makes all of them.
  for (const bool next_token : {true, false}) {
    const float* source = residual;
    for (size_t i = 0; i < items.size(); ++i) {
      const int num_tokens = static_cast<int>(items[i].tokens.size());
      const float* source_end = source + num_tokens * hidden;
      if (NeedsNextToken(items[i]) == next_token && (next_token || NeedsEveryRow(items[i]))) {
        rows_[i] = {num_rows_, NeedsEveryRow(items[i]) ? num_tokens : 1};
        std::memcpy(hidden_ + num_rows_ * hidden, source_end - rows_[i].count * hidden,
                    rows_[i].count * hidden * sizeof(float));
        num_rows_ += rows_[i].count;
      }
      source = source_end;
    }
    if (next_token) num_logit_rows_ = num_rows_;
  }
}

void EvaByteOutputs::NormRows(int num_rows) {
  if (num_rows == 0) return;
  RmsNormCpu({.x = hidden_,
              .x_stride = config_.hidden_size,
              .weight = weights_.final_norm.data(),
              .y = hidden_,
              .y_stride = config_.hidden_size,
              .rows = num_rows,
              .size = config_.hidden_size,
              .eps = config_.rms_norm_eps},
             workers_);
}

void EvaByteOutputs::ComputeLogits(const float* hidden, int num_rows, int num_heads,
                                   float* logits) {
  if (num_rows == 0) return;
  const int64_t num_logits = int64_t{num_heads} * config_.vocab_size;
  LinearCpu({.weight = &weights_.lm_head,
             .x = hidden,
             .x_stride = config_.hidden_size,
             .y = logits,
             .y_stride = num_logits,
             .rows = num_rows,
             .out_begin = 0,
             .out_end = num_logits},
            workers_);
}

StepResult EvaByteOutputs::Result(const StepItem& item, Rows rows) {
  const size_t hidden = config_.hidden_size, vocab = config_.vocab_size;
  StepResult result;
  if (item.sampler != nullptr) {
    result.sampled = item.sampler->Sample({logits_ + (rows.begin + rows.count - 1) * vocab, vocab});
  }
  if (!item.targets.empty()) result.target_logprobs = TargetLogprobs(item, rows);
  if (item.sum_hidden) result.hidden_sum = HiddenSum(rows);
  const float* first = hidden_ + rows.begin * hidden;
  if (item.all_hidden) result.hidden.assign(first, first + rows.count * hidden);
  if (item.all_logits) {
    result.logits.resize(rows.count * config_.num_pred_heads * vocab);
    ComputeLogits(first, rows.count, config_.num_pred_heads, result.logits.data());
  }
  return result;
}

std::vector<float> EvaByteOutputs::TargetLogprobs(const StepItem& item, Rows rows) const {
  const size_t vocab = config_.vocab_size;
  std::vector<float> logprobs;
  logprobs.reserve(rows.count);
  for (int i = 0; i < rows.count; ++i) {
    const std::span<const float> logits(logits_ + (rows.begin + i) * vocab, vocab);
    logprobs.push_back(logits[item.targets[i]] - LogSumExp(logits));
  }
  return logprobs;
}

std::vector<float> EvaByteOutputs::HiddenSum(Rows rows) const {
  const size_t hidden = config_.hidden_size;
  std::vector<float> sum(hidden, 0.f);
  for (int i = 0; i < rows.count; ++i) {
    const float* row = hidden_ + (rows.begin + i) * hidden;
    for (size_t j = 0; j < hidden; ++j) sum[j] += row[j];
  }
  return sum;
}

}  // namespace evaserve
