#include "kernels/summarize.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

absl::Status ValidateSequence(const SummarizeParams& p, const SummarizeSequence& sequence) {
  if (sequence.num_chunks < 0 || sequence.summary_begin < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_chunks and summary_begin are ", sequence.num_chunks, " and ",
                     sequence.summary_begin, ", must not be negative"));
  }
  if (absl::Status status = ValidateSlots(p.pages, sequence.window_pages,
                                          int64_t{sequence.num_chunks} * p.chunk, "window_pages");
      !status.ok()) {
    return status;
  }
  return ValidateSlots(p.pages, sequence.summary_pages,
                       int64_t{sequence.summary_begin} + sequence.num_chunks, "summary_pages");
}

struct Slot {
  int page = 0;
  int index = 0;
};

Slot SlotAt(PageList pages, int slot) { return {pages[slot / kPageSlots], slot % kPageSlots}; }

void Softmax(std::vector<double>& logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (double& x : logits) sum += x = std::exp(x - max);
  for (double& x : logits) x /= sum;
}

// Folds the slots `tokens` into `summary` for one head.
void SummarizeChunk(const SummarizeParams& p, int head, const std::vector<Slot>& tokens,
                    Slot summary) {
  const PageLayout& layout = p.pages.layout;
  const float* mu = p.mu + int64_t{head} * layout.head_dim;
  const float* phi = p.phi + int64_t{head} * layout.head_dim;
  const auto key = [&](Slot slot, int d) -> double {
    return LoadElement(p.pages.keys(slot.page, head), layout.dtype,
                       layout.key_index(slot.index, d));
  };
  const auto value = [&](Slot slot, int d) -> double {
    return LoadElement(p.pages.values(slot.page, head), layout.dtype,
                       layout.value_index(slot.index, d));
  };

  std::vector<double> a(tokens.size()), b(tokens.size());
  for (size_t j = 0; j < tokens.size(); ++j) {
    double norm = 0;
    for (int d = 0; d < layout.head_dim; ++d) {
      const double k = key(tokens[j], d);
      a[j] += mu[d] * k;
      b[j] += phi[d] * k;
      norm += k * k;
    }
    b[j] = p.scale * (b[j] - norm / 2);
  }
  Softmax(a);
  Softmax(b);

  for (int d = 0; d < layout.padded_head_dim(); ++d) {
    double sum_k = 0, sum_v = 0;
    for (size_t j = 0; d < layout.head_dim && j < tokens.size(); ++j) {
      sum_k += a[j] * key(tokens[j], d);
      sum_v += b[j] * value(tokens[j], d);
    }
    StoreElement(p.pages.values(summary.page, head), layout.dtype,
                 layout.value_index(summary.index, d), static_cast<float>(sum_v));
    if (d < layout.head_dim) {
      StoreElement(p.pages.keys(summary.page, head), layout.dtype,
                   layout.key_index(summary.index, d), static_cast<float>(sum_k));
    }
  }
}

}  // namespace

absl::Status Validate(const SummarizeParams& params) {
  if (absl::Status status = Validate(params.pages); !status.ok()) return status;
  if (params.chunk <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("chunk is ", params.chunk, ", must be positive"));
  }
  for (const SummarizeSequence& sequence : params.sequences) {
    if (absl::Status status = ValidateSequence(params, sequence); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status SummarizeReference(const SummarizeParams& params) {
  if (absl::Status status = Validate(params); !status.ok()) return status;
  std::vector<Slot> tokens(params.chunk);
  for (const SummarizeSequence& sequence : params.sequences) {
    for (int c = 0; c < sequence.num_chunks; ++c) {
      for (int j = 0; j < params.chunk; ++j) {
        tokens[j] = SlotAt(sequence.window_pages, c * params.chunk + j);
      }
      const Slot summary = SlotAt(sequence.summary_pages, sequence.summary_begin + c);
      for (int head = 0; head < params.pages.layout.num_heads; ++head) {
        SummarizeChunk(params, head, tokens, summary);
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace evaserve
