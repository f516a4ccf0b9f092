#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "kernels/page_layout.h"
#include "kernels/worker_pool.h"

namespace evaserve {

// Rotary position embedding in the half-split layout (SPEC: docs/numerics.md), float32.
struct RopeTable {
  const float* cos = nullptr;  // [num_positions, head_dim / 2]
  const float* sin = nullptr;  // the same
  int num_positions = 0;
};

// One sequence's new tokens: consecutive rows of q, k and v, stored in consecutive window slots.
struct StoreSequence {
  int token_begin = 0;  // row of its first token
  int num_tokens = 0;
  PageList window_pages;
  int slot_begin = 0;      // window slot of its first token
  int position_begin = 0;  // position of its first token; token i is at position_begin + i, unless:
  const int32_t* position_offsets =
      nullptr;  // [num_tokens]: at position_begin + offsets[i] (trees)
};

// Rotates queries in place, rotates keys, and stores keys and values in pages, rounded to the
// pages' type. q, k and v are [num_tokens, num_heads, head_dim]; a stride counts elements between
// two tokens, so the three may be parts of one buffer.
struct StoreSlotsParams {
  PageStore pages;
  RopeTable rope;
  float* q = nullptr;
  const float* k = nullptr;
  const float* v = nullptr;
  int64_t token_stride = 0;
  std::span<const StoreSequence> sequences;
};

// InvalidArgument, naming the field, if a page, slot or position is out of range.
absl::Status Validate(const StoreSlotsParams& params);

// Plain loops, one thread: what the operation means.
absl::Status StoreSlotsReference(const StoreSlotsParams& params);

absl::Status StoreSlotsCpu(const StoreSlotsParams& params, WorkerPool& pool);

}  // namespace evaserve
