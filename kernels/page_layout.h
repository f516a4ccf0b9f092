#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "kernels/dtype.h"

namespace evaserve {

// Slots in a page. A slot holds one key and one value for all heads of a layer; it is a token of
// the current window or the summary of a chunk, and nothing in a page tells which.
inline constexpr int kPageSlots = 64;

inline constexpr int kMaxHeadDim = 512;

// How a page of one layer lies in memory on the CPU: for each head a block of keys, then a block of
// values. Both are in the order in which the kernels read them, so that attention needs no copy:
//
//   keys    [head_dim / pack][kPageSlots][pack]         a row holds one dimension of all slots
//   values  [kPageSlots / pack][padded_head_dim][pack]  a row holds all dimensions of a slot
//
// pack is 1 for float32 and 2 for bfloat16 (the pair that one dot-product instruction consumes).
// Values are padded with zeros to a multiple of 16 dimensions. Slots that were never written may
// hold anything, NaN included.
struct PageLayout {
  DType dtype = DType::kFloat32;
  int num_heads = 0;
  int head_dim = 0;  // a multiple of 8 in [8, kMaxHeadDim]

  int pack() const { return 4 / SizeOf(dtype); }
  int padded_head_dim() const { return (head_dim + 15) / 16 * 16; }
  int64_t key_bytes() const { return int64_t{head_dim} * kPageSlots * SizeOf(dtype); }
  int64_t value_bytes() const { return int64_t{padded_head_dim()} * kPageSlots * SizeOf(dtype); }
  int64_t head_bytes() const { return key_bytes() + value_bytes(); }
  int64_t page_bytes() const { return num_heads * head_bytes(); }

  // Element index of dimension `dim` of `slot` in a block of keys or of values.
  int64_t key_index(int slot, int dim) const {
    return (int64_t{dim / pack()} * kPageSlots + slot) * pack() + dim % pack();
  }
  int64_t value_index(int slot, int dim) const {
    return (int64_t{slot / pack()} * padded_head_dim() + dim) * pack() + slot % pack();
  }
};

// InvalidArgument, naming the field and its value, if `layout` breaks a rule above.
absl::Status Validate(const PageLayout& layout);

// The pages of one layer. Somebody else owns the memory, 64-byte aligned.
struct PageStore {
  PageLayout layout;
  std::byte* data = nullptr;  // [num_pages][page_bytes]
  int num_pages = 0;

  std::byte* keys(int page, int head) const {
    return data + page * layout.page_bytes() + head * layout.head_bytes();
  }
  std::byte* values(int page, int head) const { return keys(page, head) + layout.key_bytes(); }
};

// InvalidArgument, naming the field and its value, if the layout is wrong or the memory is missing.
absl::Status Validate(const PageStore& pages);

// Slot i of a list of pages is slot i % kPageSlots of pages[i / kPageSlots].
using PageList = std::span<const int32_t>;

// InvalidArgument, naming `field`, unless the list holds num_slots slots in pages of the store.
absl::Status ValidateSlots(const PageStore& pages, PageList list, int64_t num_slots,
                           const char* field);

// What the queries of one sequence see: first every summary, then the window.
struct SlotList {
  PageList summary_pages;
  int num_summaries = 0;
  PageList window_pages;
  int num_window = 0;
};

}  // namespace evaserve
