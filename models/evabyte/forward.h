#pragma once

#include "absl/status/statusor.h"
#include "kernels/rope_table.h"
#include "kernels/worker_pool.h"
#include "models/evabyte/config.h"
#include "models/evabyte/step_batch.h"
#include "models/evabyte/weights.h"
#include "models/float_buffer.h"
#include "models/page_pool.h"

namespace evaserve {

// The layers of an EvaByte model over one flat batch. Activations are float32 in buffers that grow
// to the largest batch seen. Not thread-safe.
//
// Source: the released EvaByte code, https://github.com/OpenEvaByte/evabyte.
class EvaByteForward {
 public:
  // What it gets by reference must outlive it.
  EvaByteForward(const EvaByteConfig& config, const EvaByteWeights& weights, const PagePool& pages,
                 WorkerPool& workers);

  // Runs the batch and returns the residual stream after the last layer, [num_rows, hidden_size],
  // valid until the next call. Stores the new tokens' keys and values, and folds full windows.
  absl::StatusOr<const float*> Run(const StepBatch& batch);

 private:
  void Embed(const StepBatch& batch);
  absl::Status Attention(const StepBatch& batch, const EvaByteLayer& layer, const PageStore& pages);
  void Mlp(const EvaByteLayer& layer, int num_rows);
  void MlpRows(const EvaByteLayer& layer, const float* x, float* residual, int num_rows);
  void Norm(const std::vector<float>& weight, int num_rows);

  const EvaByteConfig& config_;
  const EvaByteWeights& weights_;
  const PagePool& pages_;
  WorkerPool& workers_;
  const RopeTables rope_;
  const float scale_;  // of queries times keys

  FloatBuffer residual_buffer_, normed_buffer_, wide_buffer_;
  float* residual_ = nullptr;  // [num_rows, hidden_size]
  float* normed_ = nullptr;    // the same; also what attention gives
  float* wide_ = nullptr;      // [num_rows, 3 * hidden_size or 2 * intermediate_size]
};

}  // namespace evaserve
