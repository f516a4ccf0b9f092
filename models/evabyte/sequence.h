#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/page_layout.h"
#include "models/page_pool.h"
#include "models/step_check.h"

namespace evaserve {

// How many slots and pages a sequence of some length has. Windows are folded as soon as they are
// full: after n tokens the window holds n % window of them, and there is a summary for each chunk
// of the windows before.
struct EvaByteGeometry {
  int window = 0;      // tokens
  int chunk = 0;       // tokens
  int page_slots = 0;  // slots in a page
  // Chunks are summarized as they get complete, though seen from the next window on: then their
  // summaries need room at once.
  bool summarizes_early = false;

  int NumWindow(int64_t length) const { return static_cast<int>(length % window); }
  int64_t NumSummaries(int64_t length) const { return length / window * (window / chunk); }
  int TokensToBoundary(int64_t length) const { return window - NumWindow(length); }

  // The most pages on the way to `length`: a sequence keeps its window's pages for the next window.
  int64_t PagesOf(int64_t slots) const { return (slots + page_slots - 1) / page_slots; }
  int64_t WindowPages(int64_t length) const;
  int64_t SummaryPages(int64_t length) const;
};

// The state of one sequence: which pages hold it. Returns them to the pool when it goes.
class EvaByteSequence final : public CheckedSequence {
 public:
  EvaByteSequence(EvaByteGeometry geometry, PageAllocator& pages)
      : geometry_(geometry), pages_(pages) {}
  EvaByteSequence(const EvaByteSequence&) = delete;
  EvaByteSequence& operator=(const EvaByteSequence&) = delete;
  ~EvaByteSequence() override;

  // Takes the pages for `num_tokens` more tokens; ResourceExhausted, and nothing taken, if too few
  // are free.
  absl::Status Reserve(int num_tokens);
  bool HasRoomFor(int num_tokens) const override;

  PageList window_pages() const { return window_pages_; }
  PageList summary_pages() const { return summary_pages_; }

 private:
  int64_t MissingWindowPages(int num_tokens) const;
  int64_t MissingSummaryPages(int num_tokens) const;

  const EvaByteGeometry geometry_;
  PageAllocator& pages_;
  std::vector<int32_t> window_pages_, summary_pages_;
};

}  // namespace evaserve
