#include "kernels/store_slots.h"

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

absl::Status ValidateSequence(const StoreSlotsParams& p, const StoreSequence& sequence) {
  if (sequence.token_begin < 0 || sequence.num_tokens < 0 || sequence.slot_begin < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("token_begin, num_tokens and slot_begin are ", sequence.token_begin, ", ",
                     sequence.num_tokens, " and ", sequence.slot_begin, ", must not be negative"));
  }
  for (int i = 0; i < sequence.num_tokens; ++i) {
    const int64_t offset = sequence.position_offsets ? sequence.position_offsets[i] : i;
    const int64_t position = sequence.position_begin + offset;
    if (position >= 0 && position < p.rope.num_positions) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("position is ", position, ", must be in [0, ", p.rope.num_positions, ")"));
  }
  return ValidateSlots(p.pages, sequence.window_pages,
                       int64_t{sequence.slot_begin} + sequence.num_tokens, "window_pages");
}

// Element `dim` of rope(x) for one head's x.
double Rotated(const float* x, int dim, int head_dim, const float* cos, const float* sin) {
  const int half = head_dim / 2;
  const int i = dim % half;
  const double other = dim < half ? -x[dim + half] : x[dim - half];
  return double{x[dim]} * cos[i] + other * sin[i];
}

void StoreHead(const StoreSlotsParams& p, int64_t token, int head, int page, int slot,
               int64_t position) {
  const PageLayout& layout = p.pages.layout;
  const int head_dim = layout.head_dim;
  const int64_t row = token * p.token_stride + int64_t{head} * head_dim;
  const float* cos = p.rope.cos + position * (head_dim / 2);
  const float* sin = p.rope.sin + position * (head_dim / 2);
  std::byte* keys = p.pages.keys(page, head);
  std::byte* values = p.pages.values(page, head);
  for (int d = 0; d < head_dim; ++d) {
    const double key = Rotated(p.k + row, d, head_dim, cos, sin);
    StoreElement(keys, layout.dtype, layout.key_index(slot, d), static_cast<float>(key));
    StoreElement(values, layout.dtype, layout.value_index(slot, d), p.v[row + d]);
  }
  for (int d = head_dim; d < layout.padded_head_dim(); ++d) {
    StoreElement(values, layout.dtype, layout.value_index(slot, d), 0.f);
  }
  for (int d = 0; d < head_dim / 2; ++d) {
    const double low = Rotated(p.q + row, d, head_dim, cos, sin);
    const double high = Rotated(p.q + row, d + head_dim / 2, head_dim, cos, sin);
    p.q[row + d] = static_cast<float>(low);
    p.q[row + d + head_dim / 2] = static_cast<float>(high);
  }
}

}  // namespace

absl::Status Validate(const StoreSlotsParams& params) {
  if (absl::Status status = Validate(params.pages); !status.ok()) return status;
  const PageLayout& layout = params.pages.layout;
  if (params.token_stride < int64_t{layout.num_heads} * layout.head_dim) {
    return absl::InvalidArgumentError(absl::StrCat("token_stride is ", params.token_stride,
                                                   ", must be at least ",
                                                   layout.num_heads * layout.head_dim));
  }
  for (const StoreSequence& sequence : params.sequences) {
    if (absl::Status status = ValidateSequence(params, sequence); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status StoreSlotsReference(const StoreSlotsParams& params) {
  if (absl::Status status = Validate(params); !status.ok()) return status;
  for (const StoreSequence& sequence : params.sequences) {
    for (int i = 0; i < sequence.num_tokens; ++i) {
      const int slot = sequence.slot_begin + i;
      const int64_t offset = sequence.position_offsets ? sequence.position_offsets[i] : i;
      for (int head = 0; head < params.pages.layout.num_heads; ++head) {
        StoreHead(params, sequence.token_begin + i, head, sequence.window_pages[slot / kPageSlots],
                  slot % kPageSlots, sequence.position_begin + offset);
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace evaserve
