#pragma once

#include <memory>

#include "kernels/rope_table.h"
#include "kernels/worker_pool.h"
#include "models/evabyte/backend.h"
#include "models/evabyte/config.h"
#include "models/evabyte/weights.h"
#include "models/float_buffer.h"

namespace evaserve {

// Activations are float32, in buffers that grow to the largest batch seen.
class EvaByteCpu final : public EvaByteBackend {
 public:
  // What it gets by reference must outlive it.
  EvaByteCpu(const EvaByteConfig& config, EvaByteWeights weights, std::unique_ptr<PagePool> pages,
             WorkerPool& workers);

  std::string device() const override { return "cpu"; }
  PageAllocator& pages() override { return pages_->allocator(); }
  bool summarizes_early() const override { return false; }
  int64_t num_parameters() const override { return weights_.num_parameters; }
  int64_t weight_bytes() const override { return weights_.bytes; }
  absl::Status Run(const StepBatch& batch) override;
  absl::StatusOr<Outputs> ComputeOutputs(std::span<const int> rows, int num_logit_rows,
                                         bool wants_hidden) override;
  absl::Status ComputeAllLogits(int begin, int count, float* logits) override;

 private:
  void Embed(const StepBatch& batch);
  absl::Status Attention(const StepBatch& batch, const EvaByteLayer& layer, const PageStore& pages);
  void Mlp(const EvaByteLayer& layer, int num_rows);
  void MlpRows(const EvaByteLayer& layer, const float* x, float* residual, int num_rows);
  void Norm(const std::vector<float>& weight, const float* x, int num_rows, float* y);
  void ComputeLogits(const float* hidden, int num_rows, int num_heads, float* logits);

  const EvaByteConfig config_;
  const EvaByteWeights weights_;
  const std::unique_ptr<PagePool> pages_;
  WorkerPool& workers_;
  const RopeTables rope_;
  const float scale_;  // of queries times keys

  FloatBuffer residual_buffer_, normed_buffer_, wide_buffer_, hidden_buffer_, logits_buffer_;
  float* residual_ = nullptr;  // [num_rows, hidden_size]
  float* normed_ = nullptr;    // the same; also what attention gives
  float* wide_ = nullptr;      // [num_rows, 3 * hidden_size or 2 * intermediate_size]
  float* hidden_ = nullptr;    // [num_rows, hidden_size], of the last ComputeOutputs()
};

}  // namespace evaserve
