#include "models/evabyte/cpu_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "kernels/elementwise.h"
#include "kernels/linear.h"
#include "models/row_blocks.h"

namespace evaserve {

EvaByteCpu::EvaByteCpu(const EvaByteConfig& config, EvaByteWeights weights,
                       std::unique_ptr<PagePool> pages, WorkerPool& workers)
    : config_(config),
      weights_(std::move(weights)),
      pages_(std::move(pages)),
      workers_(workers),
      rope_({.head_dim = config.head_dim(),
             .theta = config.rope_theta,
             .num_positions = config.max_positions,
             .scaling = config.rope_scaling,
             .factor = config.rope_factor,
             .max_positions = config.max_positions}),
      scale_(1.f / std::sqrt(static_cast<float>(config.head_dim()))) {}

absl::Status EvaByteCpu::Run(const StepBatch& batch) {
  const size_t num_rows = batch.num_rows(), hidden = config_.hidden_size;
  residual_ = residual_buffer_.Get(num_rows * hidden);
  normed_ = normed_buffer_.Get(num_rows * hidden);
  wide_ = wide_buffer_.Get(num_rows * std::max(3 * hidden, size_t{2} * config_.intermediate_size));
  Embed(batch);
  for (int i = 0; i < config_.num_layers; ++i) {
    const EvaByteLayer& layer = weights_.layers[i];
    if (absl::Status status = Attention(batch, layer, pages_->layer(i)); !status.ok())
      return status;
    Mlp(layer, batch.num_rows());
  }
  return absl::OkStatus();
}

void EvaByteCpu::Embed(const StepBatch& batch) {
  const size_t hidden = config_.hidden_size;
  for (size_t row = 0; row < batch.tokens.size(); ++row) {
    std::memcpy(residual_ + row * hidden, &weights_.embedding[batch.tokens[row] * hidden],
                hidden * sizeof(float));
  }
}

absl::Status EvaByteCpu::Attention(const StepBatch& batch, const EvaByteLayer& layer,
                                   const PageStore& pages) {
  const int64_t hidden = config_.hidden_size;
  const int num_rows = batch.num_rows();
  Norm(layer.attention_norm, residual_, num_rows, normed_);
  float* q = wide_;  // a row is [q | k | v]
  LinearCpu({.weight = &layer.qkv,
             .x = normed_,
             .x_stride = hidden,
             .y = q,
             .y_stride = 3 * hidden,
             .rows = num_rows},
            workers_);
  absl::Status status = StoreSlotsCpu({.pages = pages,
                                       .rope = rope_.table(),
                                       .q = q,
                                       .k = q + hidden,
                                       .v = q + 2 * hidden,
                                       .token_stride = 3 * hidden,
                                       .sequences = batch.stores},
                                      workers_);
  if (!status.ok()) return status;
  status = AttendCpu({.pages = pages,
                      .scale = scale_,
                      .q = q,
                      .q_stride = 3 * hidden,
                      .out = normed_,
                      .out_stride = hidden,
                      .sequences = batch.attends},
                     workers_);
  if (!status.ok()) return status;
  LinearCpu({.weight = &layer.out,
             .x = normed_,
             .x_stride = hidden,
             .y = residual_,
             .y_stride = hidden,
             .rows = num_rows,
             .accumulate = true},
            workers_);
  if (batch.folds.empty()) return absl::OkStatus();
  return SummarizeCpu({.pages = pages,
                       .chunk = config_.chunk,
                       .scale = scale_,
                       .mu = layer.mu.data(),
                       .phi = layer.phi.data(),
                       .sequences = batch.folds},
                      workers_);
}

void EvaByteCpu::Mlp(const EvaByteLayer& layer, int num_rows) {
  const int64_t hidden = config_.hidden_size;
  Norm(layer.mlp_norm, residual_, num_rows, normed_);
  const int block = RowsPerBlock(2 * int64_t{config_.intermediate_size}, num_rows);
  for (int begin = 0; begin < num_rows; begin += block) {
    MlpRows(layer, normed_ + begin * hidden, residual_ + begin * hidden,
            std::min(block, num_rows - begin));
  }
}

void EvaByteCpu::MlpRows(const EvaByteLayer& layer, const float* x, float* residual, int num_rows) {
  const int64_t hidden = config_.hidden_size, inter = config_.intermediate_size;
  LinearCpu({.weight = &layer.gate_up,
             .x = x,
             .x_stride = hidden,
             .y = wide_,
             .y_stride = 2 * inter,
             .rows = num_rows},
            workers_);
  SwiGluCpu({.x = wide_,
             .x_stride = 2 * inter,
             .y = wide_,
             .y_stride = 2 * inter,
             .rows = num_rows,
             .size = static_cast<int>(inter)},
            workers_);
  LinearCpu({.weight = &layer.down,
             .x = wide_,
             .x_stride = 2 * inter,
             .y = residual,
             .y_stride = hidden,
             .rows = num_rows,
             .accumulate = true},
            workers_);
}

void EvaByteCpu::Norm(const std::vector<float>& weight, const float* x, int num_rows, float* y) {
  RmsNormCpu({.x = x,
              .x_stride = config_.hidden_size,
              .weight = weight.data(),
              .y = y,
              .y_stride = config_.hidden_size,
              .rows = num_rows,
              .size = config_.hidden_size,
              .eps = config_.rms_norm_eps},
             workers_);
}

absl::StatusOr<EvaByteBackend::Outputs> EvaByteCpu::ComputeOutputs(std::span<const int> rows,
                                                                   int num_logit_rows,
                                                                   bool /*wants_hidden*/) {
  const size_t hidden = config_.hidden_size;
  hidden_ = hidden_buffer_.Get(rows.size() * hidden);
  for (size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(hidden_ + i * hidden, residual_ + rows[i] * hidden, hidden * sizeof(float));
  }
  if (!rows.empty()) {
    Norm(weights_.final_norm, hidden_, static_cast<int>(rows.size()), hidden_);
  }
  float* logits = logits_buffer_.Get(size_t(num_logit_rows) * config_.vocab_size);
  ComputeLogits(hidden_, num_logit_rows, /*num_heads=*/1, logits);
  return Outputs{hidden_, logits};
}

absl::Status EvaByteCpu::ComputeAllLogits(int begin, int count, float* logits) {
  ComputeLogits(hidden_ + int64_t{begin} * config_.hidden_size, count, config_.num_pred_heads,
                logits);
  return absl::OkStatus();
}

void EvaByteCpu::ComputeLogits(const float* hidden, int num_rows, int num_heads, float* logits) {
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

}  // namespace evaserve
