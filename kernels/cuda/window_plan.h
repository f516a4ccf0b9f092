#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/causal_eva.h"
#include "kernels/cuda/launchers.h"
#include "kernels/regions.h"

namespace evaserve {

struct WindowOptions {
  GpuShape shape;  // head_dim: a multiple of 8 in [8, 128]
  int num_heads = 0;
  float scale = 0.f;  // usually 1 / sqrt(head_dim)
};

// The next tokens of a sequence of causal EVA whose state lies on the device: rows of q, k and v
// side by side, as many as the shape has keys (CausalEvaShape::num_keys()), and places for
// landmarks. The token at position t has row t % num_keys() of them.
struct CausalStep {
  int position = 0;            // tokens that the sequence has had
  int row_begin = 0;           // of its first new one, in q and out
  int num_tokens = 0;          // they may not cross the end of a window
  int64_t state_begin = 0;     // row of the state in k and v
  int64_t landmark_begin = 0;  // the landmarks before its own, as they lie in k_bar and beta
  int max_chunks = 0;          // that there are places for
};

// What the kernels of a batch get, on the host: who sees whom, and which block does what.
struct WindowPlan {
  std::vector<CudaRegionItem> items;
  std::vector<CudaWindowTile> tiles;
  std::vector<CudaChunkGroup> groups;
  std::vector<int32_t> tables;
  int tile_rows = 0;
  int causal_chunk = 0;
  int extension = 0;
  int64_t bias_head_stride = 0;   // of a bias with heads; 0 if no bias fits all items
  int64_t landmark_elements = 0;  // of k_bar, and of beta: up to the end of the last item's
  // Of each new token of PlanSteps(), in their order: its row in the states.
  std::vector<int32_t> state_rows;
};

// All give InvalidArgument, naming the field, for what the kernels do not take, and for more than
// they can count.
//
// Non-causal EVA (kernels/window_attend.h, kernels/landmarks.h).
absl::StatusOr<WindowPlan> PlanWindows(const WindowOptions& options,
                                       std::span<const RegionItem> items);

// Causal EVA (kernels/causal_eva.h) of whole sequences from their first tokens on: one after the
// other in the rows of q, k, v and out, and their landmarks likewise.
absl::StatusOr<WindowPlan> PlanCausal(const WindowOptions& options, const CausalEvaShape& shape,
                                      std::span<const int> lengths);

// Causal EVA of the next tokens of sequences. The new rows must be in the states before the
// landmarks are made, and the landmarks before anything attends.
absl::StatusOr<WindowPlan> PlanSteps(const WindowOptions& options, const CausalEvaShape& shape,
                                     std::span<const CausalStep> steps);

}  // namespace evaserve
