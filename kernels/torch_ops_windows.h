#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cuda/step_plan.h"
#include "kernels/torch_ops_check.h"

namespace evaserve {

// Whole sequences as one step of the device's kernels: each is cut into windows with pages of their
// own. What a window sees of those before it, their summaries, is stored before anything attends.
class TorchWindows {
 public:
  struct Options {
    int64_t window = 0, chunk = 0;  // tokens
    bool all_summaries = false;     // those of the last window too, which no query sees
  };

  // c10::Error if that is more than the kernels can count.
  TorchWindows(const TorchShape& shape, const Options& options);

  int num_pages() const { return static_cast<int>(pages_.size()); }
  // Of a sequence; those of sequence b are the pages from b * summary_pages() on.
  int64_t summary_pages() const { return summary_pages_; }
  // Valid as long as this is.
  StepInput input() const;

 private:
  void AddSequence(int64_t b);

  const TorchShape shape_;
  const Options options_;
  const int64_t num_windows_;  // of a sequence
  int64_t summary_pages_ = 0;
  int64_t next_page_ = 0;
  std::vector<int32_t> pages_;
  std::vector<int32_t> positions_;  // all 0: the tokens are rotated already
  std::vector<CudaStoreSequence> stores_;
  std::vector<AttendSequence> attends_;
};

}  // namespace evaserve
