#include "models/page_pool.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"

namespace evaserve {

PageAllocator::PageAllocator(const Options& options) : options_(options), free_(options.num_pages) {
  std::iota(free_.rbegin(), free_.rend(), 0);
}

int32_t PageAllocator::Take() {
  const int32_t page = free_.back();
  free_.pop_back();
  return page;
}

absl::StatusOr<int> NumPages(int64_t state_bytes, int64_t page_bytes) {
  const int64_t num_pages =
      std::min<int64_t>(state_bytes / page_bytes, std::numeric_limits<int32_t>::max());
  if (num_pages >= 1) return static_cast<int>(num_pages);
  return absl::InvalidArgumentError(
      absl::StrCat("state_bytes is ", state_bytes, "; a page of this model takes ", page_bytes));
}

absl::StatusOr<std::unique_ptr<PagePool>> PagePool::Create(const Options& options) {
  if (absl::Status status = Validate(options.layout); !status.ok()) return status;
  const int64_t bytes_per_page = options.layout.page_bytes() * options.num_layers;
  const absl::StatusOr<int> num_pages = NumPages(options.state_bytes, bytes_per_page);
  if (!num_pages.ok()) return num_pages.status();
  absl::StatusOr<LazyMemory> memory = LazyMemory::Create(*num_pages * bytes_per_page);
  if (!memory.ok()) return memory.status();
  return std::unique_ptr<PagePool>(new PagePool(options, *std::move(memory), *num_pages));
}

PagePool::PagePool(const Options& options, LazyMemory memory, int num_pages)
    : layout_(options.layout),
      num_layers_(options.num_layers),
      memory_(std::move(memory)),
      allocator_({num_pages, kPageSlots, layout_.page_bytes() * num_layers_}) {}

PageStore PagePool::layer(int layer_index) const {
  const int num_pages = allocator_.num_pages();
  return {layout_, memory_.data() + int64_t{layer_index} * num_pages * layout_.page_bytes(),
          num_pages};
}

}  // namespace evaserve
