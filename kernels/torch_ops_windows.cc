#include "kernels/torch_ops_windows.h"

#include <algorithm>
#include <numeric>

namespace evaserve {
namespace {

// The kernels count in 32 bits; this leaves them room to round up.
constexpr int64_t kMaxCount = int64_t{1} << 30;

int64_t PagesOf(int64_t num_slots) { return CudaPagesOf(static_cast<int>(num_slots)); }

TorchWindows::Options Shorten(TorchWindows::Options options, int64_t seq_len) {
  options.window = std::min(options.window, seq_len);
  return options;
}

}  // namespace

TorchWindows::TorchWindows(const TorchShape& shape, const Options& options)
    : shape_(shape),
      options_(Shorten(options, shape.seq_len)),
      num_windows_((shape.seq_len + options_.window - 1) / options_.window) {
  const int64_t num_rows = shape.batch * shape.seq_len;
  TORCH_CHECK(num_rows * shape.num_heads <= kMaxCount,
              "k has batch * num_heads * seq_len = ", num_rows * shape.num_heads,
              "; allowed on a device: up to ", kMaxCount);
  const int64_t window = options_.window, last = shape.seq_len - (num_windows_ - 1) * window;
  summary_pages_ = PagesOf(options_.all_summaries ? shape.seq_len / options_.chunk
                                                  : (num_windows_ - 1) * (window / options_.chunk));
  const int64_t num_pages =
      shape.batch * (summary_pages_ + (num_windows_ - 1) * PagesOf(window) + PagesOf(last));
  const int64_t num_listed = num_pages + shape.batch * num_windows_ * summary_pages_;
  TORCH_CHECK(num_listed <= kMaxCount, "window is ", window,
              ", too short for seq_len = ", shape.seq_len, ": the lists of pages have up to ",
              num_listed, " entries; allowed on a device: up to ", kMaxCount);

  pages_.resize(num_pages);
  std::iota(pages_.begin(), pages_.end(), 0);
  positions_.resize(num_rows);
  next_page_ = shape.batch * summary_pages_;
  for (int64_t b = 0; b < shape.batch; ++b) AddSequence(b);
}

StepInput TorchWindows::input() const {
  return {.num_rows = static_cast<int>(positions_.size()),
          .positions = positions_,
          .stores = stores_,
          .attends = attends_};
}

void TorchWindows::AddSequence(int64_t b) {
  const PageList summary_list =
      PageList(pages_).subspan(b * summary_pages_, static_cast<size_t>(summary_pages_));
  for (int64_t w = 0; w < num_windows_; ++w) {
    const int64_t begin = w * options_.window;
    const int row = static_cast<int>(b * shape_.seq_len + begin);
    const int count = static_cast<int>(std::min(options_.window, shape_.seq_len - begin));
    const int num_seen = static_cast<int>(begin / options_.chunk);
    const PageList window_list = PageList(pages_).subspan(next_page_, PagesOf(count));
    next_page_ += std::ssize(window_list);
    stores_.push_back({.token_begin = row,
                       .num_tokens = count,
                       .window_pages = window_list,
                       .summarize = options_.all_summaries || w + 1 < num_windows_,
                       .summary_pages = summary_list,
                       .summary_begin = num_seen});
    attends_.push_back({{summary_list, num_seen, window_list, count}, row, count});
  }
}

}  // namespace evaserve
