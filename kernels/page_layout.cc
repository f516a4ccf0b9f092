#include "kernels/page_layout.h"

#include "absl/strings/str_cat.h"

namespace evaserve {

absl::Status Validate(const PageLayout& layout) {
  if (layout.dtype == DType::kFloat16) {
    return absl::InvalidArgumentError("dtype is float16; allowed on the CPU: float32, bfloat16");
  }
  if (layout.num_heads <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_heads is ", layout.num_heads, ", must be positive"));
  }
  if (layout.head_dim <= 0 || layout.head_dim % 8 != 0 || layout.head_dim > kMaxHeadDim) {
    return absl::InvalidArgumentError(absl::StrCat(
        "head_dim is ", layout.head_dim, ", must be a multiple of 8 in [8, ", kMaxHeadDim, "]"));
  }
  return absl::OkStatus();
}

absl::Status Validate(const PageStore& pages) {
  if (absl::Status status = Validate(pages.layout); !status.ok()) return status;
  if (pages.num_pages < 0 || (pages.num_pages > 0 && pages.data == nullptr)) {
    return absl::InvalidArgumentError(absl::StrCat("num_pages is ", pages.num_pages, " with ",
                                                   pages.data == nullptr ? "no memory" : "memory"));
  }
  return absl::OkStatus();
}

absl::Status ValidateSlots(const PageStore& pages, PageList list, int64_t num_slots,
                           const char* field) {
  if (num_slots < 0 || num_slots > int64_t{kPageSlots} * static_cast<int64_t>(list.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": ", num_slots, " slots in ", list.size(), " pages of ", kPageSlots));
  }
  for (int64_t i = 0; i * kPageSlots < num_slots; ++i) {
    if (list[i] < 0 || list[i] >= pages.num_pages) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, "[", i, "] is ", list[i], ", must be in [0, ", pages.num_pages, ")"));
    }
  }
  return absl::OkStatus();
}

}  // namespace evaserve
