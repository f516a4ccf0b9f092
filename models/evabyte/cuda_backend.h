#pragma once

#include <memory>
#include <vector>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/gpu_graphs.h"
#include "kernels/cuda/gpu_step.h"
#include "models/evabyte/backend.h"
#include "models/evabyte/config.h"
#include "models/evabyte/cuda_layers.h"

namespace evaserve {

// A model on one device and its one stream. In a 16-bit type, steps in which every sequence has
// one token run as a recorded graph, one for each number of rows after rounding up, up to the
// logits. Errors as Gpu's;
// a step that failed for want of memory has changed no state that a later one reads.
class EvaByteCuda final : public EvaByteBackend {
 public:
  // InvalidArgument, naming the config's key, for a model that the kernels do not take: a head_dim
  // other than 32, 64, 96 and 128, a chunk that does not divide 128, sizes that are not multiples
  // of 8. ResourceExhausted if it does not fit the device.
  static absl::StatusOr<std::unique_ptr<EvaByteCuda>> Create(const EvaByteConfig& config,
                                                             const EvaByteTensors& tensors,
                                                             int64_t state_bytes,
                                                             std::unique_ptr<Gpu> gpu);

  std::string device() const override;
  PageAllocator& pages() override { return pages_; }
  bool summarizes_early() const override { return true; }
  int64_t num_parameters() const override { return layers_.num_parameters(); }
  int64_t weight_bytes() const override { return layers_.weight_bytes(); }
  absl::Status Run(const StepBatch& batch) override;
  absl::StatusOr<Outputs> ComputeOutputs(std::span<const int> rows, int num_logit_rows,
                                         bool wants_hidden) override;
  absl::Status ComputeAllLogits(int begin, int count, float* logits) override;

 private:
  EvaByteCuda(const EvaByteConfig& config, EvaByteCudaWeights weights, std::unique_ptr<Gpu> gpu,
              int num_pages);

  int64_t row_bytes() const { return int64_t{config_.hidden_size} * SizeOf(config_.dtype); }
  absl::Status MakeState();
  absl::Status MakeRoom(int num_rows);
  bool IsDecode(const StepBatch& batch) const;
  StepRoom DecodeRoom(int num_rows) const;
  absl::Status Decode(const StepBatch& batch);
  absl::Status Prepare(const StepBatch& batch, GpuStep& step, const StepRoom* room);
  // Rows of the last Run(), next to each other.
  absl::StatusOr<const char*> Gather(std::span<const int> rows);
  absl::Status ReadLogits(const void* hidden, int num_rows, int num_heads, float* logits);
  absl::Status ReadHidden(int num_rows);

  const EvaByteConfig config_;
  const std::unique_ptr<Gpu> gpu_;  // first: memory goes before it
  EvaByteCudaLayers layers_;
  PageAllocator pages_;
  GpuStep step_, decode_step_;
  GpuGraphs graphs_;  // of decoding, by number of rows

  GpuMemory decode_logits_;            // of every row of the last decoding step, float32
  int num_decode_logits_ = 0;          // rows of that; 0 if the last step was another one
  GpuMemory row_numbers_, gathered_;   // int32; [rows, hidden_size]
  const char* output_rows_ = nullptr;  // of the last ComputeOutputs(), on the device
  GpuMemory device_logits_;            // float32
  std::vector<char> hidden_bytes_;
  std::vector<float> hidden_, logits_;
};

}  // namespace evaserve
