#include "models/evabyte/sequence.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace evaserve {

int64_t EvaByteGeometry::WindowPages(int64_t length) const {
  return PagesOf(std::min<int64_t>(window, length));
}

int64_t EvaByteGeometry::SummaryPages(int64_t length) const {
  return PagesOf(summarizes_early ? length / chunk : NumSummaries(length));
}

EvaByteSequence::~EvaByteSequence() {
  // In this order a sequence that comes next takes the pages in the order in which this one did.
  for (const auto* pages : {&summary_pages_, &window_pages_}) {
    std::for_each(pages->rbegin(), pages->rend(), [this](int32_t page) { pages_.Free(page); });
  }
}

absl::Status EvaByteSequence::Reserve(int num_tokens) {
  const int64_t for_window = MissingWindowPages(num_tokens);
  const int64_t for_summaries = MissingSummaryPages(num_tokens);
  if (for_window + for_summaries > pages_.num_free()) {
    return absl::ResourceExhaustedError(absl::StrCat("state pool: ", for_window + for_summaries,
                                                     " pages are needed and ", pages_.num_free(),
                                                     " are free"));
  }
  for (int64_t i = 0; i < for_window; ++i) window_pages_.push_back(pages_.Take());
  for (int64_t i = 0; i < for_summaries; ++i) summary_pages_.push_back(pages_.Take());
  return absl::OkStatus();
}

bool EvaByteSequence::HasRoomFor(int num_tokens) const {
  return MissingWindowPages(num_tokens) == 0 && MissingSummaryPages(num_tokens) == 0;
}

int64_t EvaByteSequence::MissingWindowPages(int num_tokens) const {
  const int64_t needed = geometry_.PagesOf(geometry_.NumWindow(length()) + num_tokens);
  return std::max<int64_t>(0, needed - std::ssize(window_pages_));
}

int64_t EvaByteSequence::MissingSummaryPages(int num_tokens) const {
  const int64_t needed = geometry_.SummaryPages(length() + num_tokens);
  return std::max<int64_t>(0, needed - std::ssize(summary_pages_));
}

}  // namespace evaserve
