#include "models/evabyte/cuda_layers.h"

#include <algorithm>
#include <utility>

#include "kernels/rope_table.h"

namespace evaserve {

EvaByteCudaLayers::EvaByteCudaLayers(const EvaByteConfig& config, EvaByteCudaWeights weights,
                                     Gpu& gpu)
    : config_(config), weights_(std::move(weights)), gpu_(gpu) {}

int64_t EvaByteCudaLayers::PageBytes(const EvaByteConfig& config) {
  return config.num_layers *
         CudaPageBytes(config.num_heads, config.head_dim(), SizeOf(config.dtype));
}

absl::Status EvaByteCudaLayers::MakeState(int num_pages) {
  num_pages_ = num_pages;
  absl::StatusOr<GpuMemory> pool = gpu_.Allocate(num_pages * PageBytes(config_));
  if (!pool.ok()) return pool.status();
  pool_ = *std::move(pool);
  const RopeTables rope({.head_dim = config_.head_dim(),
                         .theta = config_.rope_theta,
                         .num_positions = config_.max_positions,
                         .scaling = config_.rope_scaling,
                         .factor = config_.rope_factor,
                         .max_positions = config_.max_positions});
  const int64_t bytes = int64_t{config_.max_positions} * config_.head_dim() / 2 * kFloatBytes;
  for (const auto& [from, to] :
       {std::pair(rope.table().cos, &cos_), std::pair(rope.table().sin, &sin_)}) {
    if (absl::Status status = Grow(gpu_, bytes, *to); !status.ok()) return status;
    absl::Status status = gpu_.ToDevice(to->as<void>(), from, bytes);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> EvaByteCudaLayers::MakeRoom(int num_rows) {
  const int64_t rows = num_rows, hidden = config_.hidden_size, inter = config_.intermediate_size;
  const int64_t element = element_bytes();
  const std::pair<GpuMemory&, int64_t> needs[] = {
      {residual_, rows * hidden * kFloatBytes},
      {normed_, rows * hidden * element},
      {delta_, rows * hidden * element},
      {wide_, rows * std::max(3 * hidden, 2 * inter) * element},
      {narrow_, rows * std::max(hidden, inter) * element},
  };
  bool has_moved = false;
  for (const auto& [memory, bytes] : needs) {
    has_moved |= memory.size() < bytes;
    if (absl::Status status = Grow(gpu_, bytes, memory); !status.ok()) return status;
  }
  return has_moved;
}

absl::Status EvaByteCudaLayers::Run(GpuStep& step, int num_rows) {
  if (absl::Status status = Embed(step.tokens(), num_rows); !status.ok()) return status;
  for (int i = 0; i < config_.num_layers; ++i) {
    if (absl::Status status = RunLayer(i, step, num_rows); !status.ok()) return status;
  }
  return Norm(weights_.final_norm, /*has_delta=*/true, num_rows);
}

absl::Status EvaByteCudaLayers::Embed(const int32_t* tokens, int num_rows) {
  return LaunchStatus(LaunchGatherRows({.from = weights_.embedding.as<void>(),
                                        .rows = tokens,
                                        .to = residual_.as<void>(),
                                        .row_bytes = config_.hidden_size * kFloatBytes},
                                       num_rows, gpu_.stream()));
}

absl::Status EvaByteCudaLayers::RunLayer(int layer_index, GpuStep& step, int num_rows) {
  const EvaByteCudaWeights::Layer& layer = weights_.layers[layer_index];
  absl::Status status = Norm(layer.attention_norm, /*has_delta=*/layer_index > 0, num_rows);
  if (!status.ok()) return status;
  if (status = Attention(layer_index, step, num_rows); !status.ok()) return status;
  if (status = Norm(layer.mlp_norm, /*has_delta=*/true, num_rows); !status.ok()) return status;
  return Mlp(layer, num_rows);
}

absl::Status EvaByteCudaLayers::Attention(int layer_index, GpuStep& step, int num_rows) {
  const EvaByteCudaWeights::Layer& layer = weights_.layers[layer_index];
  const int hidden = config_.hidden_size;
  absl::Status status = Multiply(normed_, layer.qkv, wide_, num_rows, hidden, 3 * hidden);
  if (!status.ok()) return status;
  const int64_t layer_bytes = num_pages_ * PageBytes(config_) / config_.num_layers;
  auto* const q = wide_.as<char>();  // a row is [q | k | v]
  const StepLayer pages{.pool = pool_.as<char>() + layer_index * layer_bytes,
                        .q = q,
                        .k = q + hidden * element_bytes(),
                        .v = q + 2 * hidden * element_bytes(),
                        .stride = 3 * hidden,
                        .cos = cos_.as<float>(),
                        .sin = sin_.as<float>(),
                        .mu = layer.mu.as<float>(),
                        .phi = layer.phi.as<float>()};
  if (status = step.Store(pages); !status.ok()) return status;
  if (status = step.Attend(pages, narrow_.as<void>(), hidden); !status.ok()) return status;
  return Multiply(narrow_, layer.out, delta_, num_rows, hidden, hidden);
}

absl::Status EvaByteCudaLayers::Mlp(const EvaByteCudaWeights::Layer& layer, int num_rows) {
  const int hidden = config_.hidden_size, inter = config_.intermediate_size;
  absl::Status status = Multiply(normed_, layer.gate_up, wide_, num_rows, hidden, 2 * inter);
  if (!status.ok()) return status;
  status = LaunchStatus(LaunchSwiGlu(config_.dtype,
                                     {.x = wide_.as<void>(),
                                      .x_stride = 2 * inter,
                                      .y = narrow_.as<void>(),
                                      .y_stride = inter,
                                      .rows = num_rows,
                                      .size = inter},
                                     gpu_.stream()));
  if (!status.ok()) return status;
  return Multiply(narrow_, layer.down, delta_, num_rows, inter, hidden);
}

absl::Status EvaByteCudaLayers::Norm(const GpuMemory& weight, bool has_delta, int num_rows) {
  const int hidden = config_.hidden_size;
  return LaunchStatus(LaunchAddRmsNorm(config_.dtype,
                                       {.x = has_delta ? delta_.as<void>() : nullptr,
                                        .x_stride = hidden,
                                        .residual = residual_.as<float>(),
                                        .residual_stride = hidden,
                                        .weight = weight.as<float>(),
                                        .y = normed_.as<void>(),
                                        .y_stride = hidden,
                                        .size = hidden,
                                        .eps = config_.rms_norm_eps},
                                       num_rows, gpu_.stream()));
}

absl::Status EvaByteCudaLayers::Multiply(const GpuMemory& x, const GpuMemory& weight, GpuMemory& y,
                                         int num_rows, int in, int out) {
  return gpu_.Multiply({.type = config_.dtype,
                        .x = x.as<void>(),
                        .x_stride = in,
                        .weight = weight.as<void>(),
                        .y = y.as<void>(),
                        .y_stride = out,
                        .rows = num_rows,
                        .in = in,
                        .out = out});
}

absl::Status EvaByteCudaLayers::ComputeLogits(const void* hidden, int num_rows, int num_heads,
                                              float* logits) {
  const int num_logits = num_heads * config_.vocab_size;
  return gpu_.Multiply({.type = config_.dtype,
                        .x = hidden,
                        .x_stride = config_.hidden_size,
                        .weight = weights_.lm_head.as<void>(),
                        .y = logits,
                        .y_stride = num_logits,
                        .y_is_float = true,
                        .rows = num_rows,
                        .in = config_.hidden_size,
                        .out = num_logits});
}

}  // namespace evaserve
