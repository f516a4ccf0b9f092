#pragma once

#include <memory>
#include <vector>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/gpu_step.h"
#include "kernels/rope_table.h"
#include "models/evabyte/backend.h"
#include "models/evabyte/config.h"
#include "models/evabyte/cuda_weights.h"

namespace evaserve {

// Weights, pages and arithmetic on one device. The residual stream is float32, what passes between
// matrix products is the model's type. Errors as Gpu's; a step that failed for want of memory has
// changed no state that a later one reads.
class EvaByteCuda final : public EvaByteBackend {
 public:
  // InvalidArgument, naming the config's key, for a model that the kernels do not take: float32
  // weights, a head_dim other than 32, 64, 96 and 128, a chunk that does not divide 128, sizes that
  // are not multiples of 8. ResourceExhausted if it does not fit the device.
  static absl::StatusOr<std::unique_ptr<EvaByteCuda>> Create(const EvaByteConfig& config,
                                                             const EvaByteTensors& tensors,
                                                             int64_t state_bytes,
                                                             std::unique_ptr<Gpu> gpu);

  std::string device() const override;
  PageAllocator& pages() override { return pages_; }
  bool summarizes_early() const override { return true; }
  int64_t num_parameters() const override { return weights_.num_parameters; }
  int64_t weight_bytes() const override { return weights_.bytes; }
  absl::Status Run(const StepBatch& batch) override;
  absl::StatusOr<Outputs> ComputeOutputs(std::span<const int> rows, int num_logit_rows,
                                         bool wants_hidden) override;
  absl::Status ComputeAllLogits(int begin, int count, float* logits) override;

 private:
  EvaByteCuda(const EvaByteConfig& config, std::unique_ptr<Gpu> gpu, int num_pages);

  int64_t element_bytes() const { return SizeOf(config_.dtype); }
  absl::Status MakeState(int num_pages);
  absl::Status MakeBuffers(int num_rows);
  absl::Status Embed(const StepBatch& batch);
  absl::Status PrepareStep(const StepBatch& batch);
  absl::Status RunLayer(int layer_index, int num_rows);
  absl::Status Attention(int layer_index, int num_rows);
  absl::Status Mlp(const EvaByteCudaWeights::Layer& layer, int num_rows);
  // normed = norm(residual += delta); without a delta the residual is left alone.
  absl::Status Norm(const GpuMemory& weight, bool has_delta, int num_rows);
  absl::Status Multiply(const GpuMemory& x, const GpuMemory& weight, GpuMemory& y, int num_rows,
                        int in, int out);
  absl::Status ComputeLogits(const void* hidden, int num_rows, int num_heads, float* logits);

  const EvaByteConfig config_;
  const std::unique_ptr<Gpu> gpu_;  // first: memory goes before it
  EvaByteCudaWeights weights_;
  GpuMemory pool_;  // [num_layers][num_pages][page_bytes]
  GpuMemory cos_, sin_;
  PageAllocator pages_;
  GpuStep step_;

  GpuMemory row_numbers_;     // int32
  GpuMemory residual_;        // [rows, hidden_size], float32
  GpuMemory normed_, delta_;  // [rows, hidden_size]
  GpuMemory wide_;            // [rows, 3 * hidden_size or 2 * intermediate_size]
  GpuMemory narrow_;          // [rows, hidden_size or intermediate_size]
  GpuMemory gathered_;        // [rows, hidden_size], of the last ComputeOutputs()
  GpuMemory device_logits_;   // float32
  std::vector<char> gathered_on_host_;
  std::vector<float> hidden_, logits_;
};

}  // namespace evaserve
