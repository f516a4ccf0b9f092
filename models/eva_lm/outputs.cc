#include "models/eva_lm/outputs.h"

#include <algorithm>
#include <cstring>

namespace evaserve {
namespace {

// Rows over the whole vocabulary at a time: the weights are read once for so many, and the results
// stay within some megabytes.
constexpr size_t kRowsAtOnce = 16;

}  // namespace

std::vector<StepResult> EvaLmOutputs::Compute(std::span<const StepItem> items,
                                              const float* hidden) {
  hidden_ = hidden;
  std::vector<StepResult> results(items.size());
  const float* rows = hidden;
  for (size_t i = 0; i < items.size(); ++i) {
    FillHidden(items[i], rows, results[i]);
    rows += std::ssize(items[i].tokens) * size_;
  }
  ScoreTargets(items, results);
  Sample(items, results);
  return results;
}

void EvaLmOutputs::FillHidden(const StepItem& item, const float* rows, StepResult& result) {
  const int64_t num_tokens = std::ssize(item.tokens);
  if (item.all_hidden) result.hidden.assign(rows, rows + num_tokens * size_);
  if (item.all_logits) {
    result.logits.resize(num_tokens * vocab_size_);
    words_.LogProbs(rows, static_cast<int>(num_tokens), result.logits.data(), workers_);
  }
  if (!item.sum_hidden) return;
  result.hidden_sum.assign(size_, 0.f);
  for (int64_t i = 0; i < num_tokens; ++i) {
    for (int j = 0; j < size_; ++j) result.hidden_sum[j] += rows[i * size_ + j];
  }
}

void EvaLmOutputs::ScoreTargets(std::span<const StepItem> items, std::vector<StepResult>& results) {
  std::vector<int> rows;
  std::vector<TokenId> targets;
  int row = 0;
  for (const StepItem& item : items) {
    for (size_t i = 0; i < item.targets.size(); ++i) rows.push_back(row + static_cast<int>(i));
    targets.insert(targets.end(), item.targets.begin(), item.targets.end());
    row += static_cast<int>(item.tokens.size());
  }
  std::vector<float> logprobs(targets.size());
  words_.TargetLogProbs(Gather(rows), targets, logprobs.data(), workers_);
  auto next = logprobs.begin();
  for (size_t i = 0; i < items.size(); ++i) {
    const auto end = next + std::ssize(items[i].targets);
    results[i].target_logprobs.assign(next, end);
    next = end;
  }
}

void EvaLmOutputs::Sample(std::span<const StepItem> items, std::vector<StepResult>& results) {
  std::vector<int> rows;
  std::vector<size_t> who;  // draws from it
  int row = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    row += static_cast<int>(items[i].tokens.size());
    if (items[i].sampler == nullptr) continue;
    rows.push_back(row - 1);
    who.push_back(i);
  }
  for (size_t begin = 0; begin < rows.size(); begin += kRowsAtOnce) {
    const size_t count = std::min(kRowsAtOnce, rows.size() - begin);
    const float* x = Gather(std::span(rows).subspan(begin, count));
    float* logprobs = logprobs_.Get(count * vocab_size_);
    words_.LogProbs(x, static_cast<int>(count), logprobs, workers_);
    for (size_t i = 0; i < count; ++i) {
      const std::span<const float> row(logprobs + i * vocab_size_, vocab_size_);
      results[who[begin + i]].sampled = items[who[begin + i]].sampler->Sample(row);
    }
  }
}

const float* EvaLmOutputs::Gather(std::span<const int> rows) {
  float* gathered = gathered_.Get(rows.size() * size_);
  for (size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(gathered + i * size_, hidden_ + int64_t{rows[i]} * size_, size_ * sizeof(float));
  }
  return gathered;
}

}  // namespace evaserve
