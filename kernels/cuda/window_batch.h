#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cuda/window_plan.h"

namespace evaserve {

// The landmarks of one layer. q, k and v are [rows, num_heads, head_dim], stride elements apart.
struct LandmarksLayer {
  const void* q = nullptr;
  const void* k = nullptr;
  const void* v = nullptr;
  int64_t stride = 0;  // a multiple of 8
  CudaMap map_q;
  CudaMap map_k;
  float mu_scale = 0.5f;
  void* k_bar = nullptr;  // WindowPlan::landmark_elements each
  void* beta = nullptr;
};

// Attention of one layer. Tensors of rows as above.
struct WindowLayer {
  const void* q = nullptr;
  int64_t q_stride = 0;
  const void* k = nullptr;
  const void* v = nullptr;
  int64_t kv_stride = 0;
  const void* k_bar = nullptr;
  const void* beta = nullptr;
  // [num_heads, window_queries, window_keys], or without the heads if it is shared; null means
  // none.
  const float* bias = nullptr;
  bool bias_is_shared = false;
  void* out = nullptr;
  int64_t out_stride = 0;
  float* lse = nullptr;  // [rows, num_heads]; may be null
};

// A plan as bytes, which are uploaded once a batch and which all layers share. Immutable.
class WindowBatch {
 public:
  WindowBatch(const WindowOptions& options, const WindowPlan& plan);

  std::span<const char> bytes() const { return bytes_; }

  // What the kernels get for a layer. `memory` holds bytes(), at a multiple of 16. InvalidArgument,
  // naming the field, for what they do not take.
  absl::StatusOr<LandmarksArgs> Args(const LandmarksLayer& layer, const void* memory) const;
  absl::StatusOr<WindowAttendArgs> Args(const WindowLayer& layer, const void* memory) const;

 private:
  WindowOptions options_;
  int num_tiles_ = 0, tile_rows_ = 0, num_groups_ = 0;
  int causal_chunk_ = 0, extension_ = 0;
  int64_t bias_head_stride_ = 0;
  std::vector<char> bytes_;
  int64_t items_ = 0, tiles_ = 0, groups_ = 0, tables_ = 0;  // where they lie in bytes_
};

}  // namespace evaserve
