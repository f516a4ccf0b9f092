#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/attend.h"
#include "kernels/cuda/attend_plan.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/store_plan.h"

namespace evaserve {

struct StepOptions {
  GpuShape shape;
  int num_heads = 0;
  int chunk = 0;
  float scale = 0.f;  // usually 1 / sqrt(head_dim)
  // Of the device.
  int compute_capability = 0;  // 90 for sm_90
  int num_multiprocessors = 1;
  int num_narrow_blocks = 1;  // of the narrow kernel, that it runs at once
};

// The rows of a step. Page lists are of pages of kCudaPageSlots slots, of all layers alike.
struct StepInput {
  int num_rows = 0;
  std::span<const int32_t> positions;  // [num_rows]
  std::span<const int32_t> tokens;     // [num_rows], or none; not looked at, see StepPlan::tokens()
  std::span<const CudaStoreSequence> stores;
  std::span<const AttendSequence> attends;
};

// For steps of one query a sequence (not in float32) whose launches are recorded once and repeated:
// plans with the
// same room lie at the same places and are launched alike, whatever the sequences are.
struct StepRoom {
  int num_rows = 0;  // that the kernels run over; nothing is written for those past the input's
  int pages_per_row = 0;
};

// One layer's pages, and its q, k and v: [num_rows, num_heads, head_dim], stride elements apart.
struct StepLayer {
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

// What a step needs on the device.
struct StepMemory {
  const void* plan = nullptr;      // StepPlan::bytes(), at a multiple of 16
  const void* zeros = nullptr;     // kZeroBytes of zeros
  int32_t* num_arrived = nullptr;  // StepPlan::num_arrived() zeros, which the kernels leave zero
  float* partials = nullptr;       // StepPlan::num_partial_floats()
};

// What all layers of a step share: which queries read which slots, and which kernel, block and warp
// does what. It is made on the host, and its bytes are uploaded once a step. Immutable.
class StepPlan {
 public:
  // InvalidArgument, naming the field, for a page outside [0, num_pages), a head_dim or chunk that
  // the kernels do not take, rows that no sequence or two have, or more than `room` has room for.
  // Without a room (null) the plan is as large as the step needs.
  static absl::StatusOr<StepPlan> Make(const StepOptions& options, const StepInput& input,
                                       int num_pages, const StepRoom* room = nullptr);

  std::span<const char> bytes() const { return bytes_; }
  int64_t num_arrived() const { return num_arrived_; }
  int64_t num_partial_floats() const { return num_partial_floats_; }

  // Where StepInput::tokens lie: [num_rows], of the room if there is one.
  const int32_t* tokens(const StepMemory& memory) const;

  // Both check the layer: InvalidArgument, naming the field, for a stride or an address that the
  // kernels do not take.
  // Rotates q and k, stores keys and values, and summarizes the chunks that get complete.
  absl::Status Store(const StepLayer& layer, const StepMemory& memory, void* stream) const;
  // out is [num_rows, num_heads, head_dim], out_stride elements apart.
  absl::Status Attend(const StepLayer& layer, void* out, int64_t out_stride,
                      const StepMemory& memory, void* stream) const;

 private:
  // Sequences that one attention kernel takes: with many queries the wide, the portable or the
  // float32 one, with few the narrow one. Places are offsets in bytes_.
  struct Part {
    int num_tiles = 0;
    int64_t sequences = 0, tiles = 0, pages = 0, tree_masks = 0;
  };

  explicit StepPlan(const StepOptions& options) : options_(options) {}

  void Pack(const StepInput& input, const StepRoom* room);
  bool is_float() const { return options_.shape.type == DType::kFloat32; }
  bool has_wide() const { return options_.compute_capability == 90; }
  int many_tile_rows() const;
  int64_t page_bytes() const;
  CudaAttendArgs AttendArgs(const Part& part, const StepLayer& layer, void* out, int64_t out_stride,
                            const StepMemory& memory) const;
  absl::Status AttendMany(const CudaAttendArgs& args, const StepMemory& memory, void* stream) const;

  StepOptions options_;
  int num_rows_ = 0;
  int num_chunks_ = 0;
  Part many_, few_;
  int64_t splits_ = 0, num_splits_ = 0, chunks_ = 0, positions_ = 0, tokens_ = 0;
  int64_t num_arrived_ = 0, num_partial_floats_ = 0;
  std::vector<char> bytes_;
};

}  // namespace evaserve
