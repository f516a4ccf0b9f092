#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/gpu_step.h"
#include "models/evabyte/config.h"
#include "models/evabyte/cuda_weights.h"

namespace evaserve {

inline constexpr int64_t kFloatBytes = sizeof(float);

// The arithmetic of all layers on one device: weights, pages and what lies between two kernels. The
// residual stream is float32, what passes between matrix products is the model's type. Errors as
// Gpu's. Not thread-safe.
class EvaByteCudaLayers {
 public:
  // `config` and `gpu` must outlive it.
  EvaByteCudaLayers(const EvaByteConfig& config, EvaByteCudaWeights weights, Gpu& gpu);

  // Before all else: the pages of all layers, and the tables of RoPE.
  absl::Status MakeState(int num_pages);

  // Makes room for so many rows at once. True if memory moved for that.
  absl::StatusOr<bool> MakeRoom(int num_rows);

  // Takes rows, for which there is room, through all layers and the final norm.
  absl::Status Run(GpuStep& step, int num_rows);

  // Of the last Run(): [num_rows, hidden_size], in the model's type.
  const void* hidden() const { return normed_.as<void>(); }

  // logits = hidden times the first num_heads prediction heads: [num_rows, num_heads, vocab_size].
  absl::Status ComputeLogits(const void* hidden, int num_rows, int num_heads, float* logits);

  // In device memory, of one page over all layers.
  static int64_t PageBytes(const EvaByteConfig& config);
  int64_t num_parameters() const { return weights_.num_parameters; }
  int64_t weight_bytes() const { return weights_.bytes; }

 private:
  int64_t element_bytes() const { return SizeOf(config_.dtype); }
  absl::Status Embed(const int32_t* tokens, int num_rows);
  absl::Status RunLayer(int layer_index, GpuStep& step, int num_rows);
  absl::Status Attention(int layer_index, GpuStep& step, int num_rows);
  absl::Status Mlp(const EvaByteCudaWeights::Layer& layer, int num_rows);
  // normed = norm(residual += delta); without a delta the residual is left alone.
  absl::Status Norm(const GpuMemory& weight, bool has_delta, int num_rows);
  absl::Status Multiply(const GpuMemory& x, const GpuMemory& weight, GpuMemory& y, int num_rows,
                        int in, int out);

  const EvaByteConfig& config_;
  const EvaByteCudaWeights weights_;
  Gpu& gpu_;
  int num_pages_ = 0;
  GpuMemory pool_;  // [num_layers][num_pages][a layer's part of a page]
  GpuMemory cos_, sin_;

  GpuMemory residual_;        // [rows, hidden_size], float32
  GpuMemory normed_, delta_;  // [rows, hidden_size]
  GpuMemory wide_;            // [rows, 3 * hidden_size or 2 * intermediate_size]
  GpuMemory narrow_;          // [rows, hidden_size or intermediate_size]
};

}  // namespace evaserve
