#pragma once

#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/attend.h"
#include "kernels/cuda/attend_plan.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/store_plan.h"

namespace evaserve {

// One step of a batch on a device: what all layers share is planned on the host and uploaded once.
//
//   step.Prepare(...);
//   for each layer: step.Store(...); step.Attend(...);
//
// Not thread-safe.
class GpuStep {
 public:
  struct Options {
    GpuShape shape;
    int num_heads = 0;
    int chunk = 0;
    float scale = 0.f;
  };

  // `gpu` must outlive it.
  GpuStep(const Options& options, Gpu& gpu) : options_(options), gpu_(gpu) {}

  // The rows of a step. Page lists are of pages of kCudaPageSlots slots, of all layers alike.
  struct Input {
    int num_rows = 0;
    std::span<const int32_t> positions;  // [num_rows]
    std::span<const CudaStoreSequence> stores;
    std::span<const AttendSequence> attends;
  };
  // InvalidArgument, naming the field, for a page outside [0, num_pages), a head_dim or chunk that
  // the kernels do not take, or rows that no sequence or two have.
  absl::Status Prepare(const Input& input, int num_pages);

  // A layer's pages, and its q, k and v: [num_rows, num_heads, head_dim], stride elements apart.
  struct Layer {
    void* pool = nullptr;
    void* q = nullptr;
    const void* k = nullptr;
    const void* v = nullptr;
    int64_t stride = 0;          // a multiple of 8
    const float* cos = nullptr;  // [num_positions, head_dim / 2]
    const float* sin = nullptr;
    const float* mu = nullptr;  // [num_heads, head_dim]
    const float* phi = nullptr;
  };
  // Rotates q and k, stores keys and values, and summarizes the chunks that get complete.
  absl::Status Store(const Layer& layer);
  // out is [num_rows, num_heads, head_dim], out_stride elements apart.
  absl::Status Attend(const Layer& layer, void* out, int64_t out_stride);

 private:
  // Sequences that one attention kernel takes, and where their plan lies on the device.
  struct Part {
    AttendPlan plan;
    CudaAttendArgs args;
  };

  absl::Status Validate(const Input& input, int num_pages) const;
  bool has_wide() const { return gpu_.info().compute_capability == 90; }
  int64_t page_bytes() const {
    return CudaPageBytes(options_.num_heads, options_.shape.head_dim, sizeof(uint16_t));
  }
  void PlanParts(std::span<const AttendSequence> sequences);
  absl::Status MakeWorkspace();
  absl::Status Upload(const Input& input);
  CudaAttendArgs ArgsFor(const Part& part, const Layer& layer, void* out, int64_t out_stride) const;

  const Options options_;
  Gpu& gpu_;
  int num_rows_ = 0;
  Part many_, few_;  // sequences with many queries, with few
  std::vector<CudaSplit> splits_;
  std::vector<CudaChunk> chunks_;
  NarrowAttendArgs narrow_;
  StoreChunksArgs store_;
  GpuMemory plan_, partials_, num_arrived_, zeros_;
};

}  // namespace evaserve
