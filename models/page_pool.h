#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/page_layout.h"
#include "models/lazy_memory.h"
#include "models/model.h"

namespace evaserve {

// The numbers of the pages that the sequences of one model share. A page has the same number in
// every layer, so a sequence keeps one list for all of them. The page freed last is handed out
// first. Not thread-safe.
class PageAllocator {
 public:
  struct Options {
    int num_pages = 0;
    int page_slots = 0;
    int64_t page_bytes = 0;  // over all layers
  };

  explicit PageAllocator(const Options& options);

  int page_slots() const { return options_.page_slots; }
  int num_pages() const { return options_.num_pages; }
  int num_free() const { return static_cast<int>(free_.size()); }
  StatePool state() const { return {options_.page_bytes, options_.num_pages, num_free()}; }

  // Takes a page; there must be a free one.
  int32_t Take();
  void Free(int32_t page) { free_.push_back(page); }

 private:
  const Options options_;
  std::vector<int32_t> free_;
};

// How many pages of page_bytes fit state_bytes; InvalidArgument if none does.
absl::StatusOr<int> NumPages(int64_t state_bytes, int64_t page_bytes);

// Pages in the CPU's memory, of which one takes real memory when it is first written. So what is
// resident is the most that was ever used.
class PagePool {
 public:
  struct Options {
    PageLayout layout;
    int num_layers = 0;
    int64_t state_bytes = 0;  // over all layers; rounded down to whole pages
  };

  // InvalidArgument for a bad layout or less memory than one page; ResourceExhausted if the system
  // has no address space left.
  static absl::StatusOr<std::unique_ptr<PagePool>> Create(const Options& options);

  PageAllocator& allocator() { return allocator_; }

  // The pages of one layer.
  PageStore layer(int layer_index) const;

 private:
  PagePool(const Options& options, LazyMemory memory, int num_pages);

  const PageLayout layout_;
  const int num_layers_;
  const LazyMemory memory_;  // [num_layers][num_pages][page_bytes]
  PageAllocator allocator_;
};

}  // namespace evaserve
