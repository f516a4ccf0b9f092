#include "kernels/attend.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

absl::Status ValidateSequence(const PageStore& pages, const AttendSequence& sequence) {
  const SlotList& slots = sequence.slots;
  if (sequence.query_begin < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("query_begin is ", sequence.query_begin, ", must not be negative"));
  }
  if (sequence.num_queries < 0 || sequence.num_queries > slots.num_window) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_queries is ", sequence.num_queries,
                     ", must be in [0, num_window], and num_window is ", slots.num_window));
  }
  for (int i = 0; sequence.tree_mask != nullptr && i < sequence.num_queries; ++i) {
    if (sequence.tree_mask[int64_t{i} * sequence.num_queries + i] != 0) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("tree_mask[", i, "][", i, "] is 0: a query must see itself"));
  }
  if (absl::Status status =
          ValidateSlots(pages, slots.summary_pages, slots.num_summaries, "summary_pages");
      !status.ok()) {
    return status;
  }
  return ValidateSlots(pages, slots.window_pages, slots.num_window, "window_pages");
}

struct Slot {
  int page = 0;
  int index = 0;
};

// The slots that a query sees, in order.
std::vector<Slot> VisibleSlots(const AttendSequence& sequence, int query) {
  const SlotList& list = sequence.slots;
  std::vector<Slot> slots;
  for (int i = 0; i < list.num_summaries; ++i) {
    slots.push_back({list.summary_pages[i / kPageSlots], i % kPageSlots});
  }
  const int own_begin = list.num_window - sequence.num_queries;
  for (int i = 0; i < list.num_window; ++i) {
    const int own = i - own_begin;
    const bool seen = own < 0 || (sequence.tree_mask == nullptr
                                      ? own <= query
                                      : sequence.tree_mask[query * sequence.num_queries + own]);
    if (seen) slots.push_back({list.window_pages[i / kPageSlots], i % kPageSlots});
  }
  return slots;
}

void AttendQuery(const AttendParams& p, int64_t token, int head, const std::vector<Slot>& slots) {
  const PageLayout& layout = p.pages.layout;
  const float* q = p.q + token * p.q_stride + int64_t{head} * layout.head_dim;
  float* out = p.out + token * p.out_stride + int64_t{head} * layout.head_dim;

  std::vector<double> weights;
  for (const Slot& slot : slots) {
    double logit = 0;
    for (int d = 0; d < layout.head_dim; ++d) {
      logit += double{q[d]} * LoadElement(p.pages.keys(slot.page, head), layout.dtype,
                                          layout.key_index(slot.index, d));
    }
    weights.push_back(logit * p.scale);
  }
  const double max = *std::max_element(weights.begin(), weights.end());
  double sum = 0;
  for (double& x : weights) sum += x = std::exp(x - max);

  for (int d = 0; d < layout.head_dim; ++d) {
    double value = 0;
    for (size_t j = 0; j < slots.size(); ++j) {
      value += weights[j] * LoadElement(p.pages.values(slots[j].page, head), layout.dtype,
                                        layout.value_index(slots[j].index, d));
    }
    out[d] = static_cast<float>(value / sum);
  }
  if (p.lse != nullptr) {
    p.lse[token * layout.num_heads + head] = static_cast<float>(max + std::log(sum));
  }
}

}  // namespace

absl::Status Validate(const AttendParams& params) {
  if (absl::Status status = Validate(params.pages); !status.ok()) return status;
  const int64_t row = int64_t{params.pages.layout.num_heads} * params.pages.layout.head_dim;
  if (params.q_stride < row || params.out_stride < row) {
    return absl::InvalidArgumentError(absl::StrCat("q_stride and out_stride are ", params.q_stride,
                                                   " and ", params.out_stride,
                                                   ", must be at least ", row));
  }
  for (const AttendSequence& sequence : params.sequences) {
    if (absl::Status status = ValidateSequence(params.pages, sequence); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status AttendReference(const AttendParams& params) {
  if (absl::Status status = Validate(params); !status.ok()) return status;
  for (const AttendSequence& sequence : params.sequences) {
    for (int i = 0; i < sequence.num_queries; ++i) {
      const std::vector<Slot> slots = VisibleSlots(sequence, i);
      for (int head = 0; head < params.pages.layout.num_heads; ++head) {
        AttendQuery(params, sequence.query_begin + i, head, slots);
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace evaserve
