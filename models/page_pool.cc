#include "models/page_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"

namespace evaserve {

absl::StatusOr<std::unique_ptr<PagePool>> PagePool::Create(const Options& options) {
  if (absl::Status status = Validate(options.layout); !status.ok()) return status;
  const int64_t bytes_per_page = options.layout.page_bytes() * options.num_layers;
  const int64_t num_pages =
      std::min<int64_t>(options.state_bytes / bytes_per_page, std::numeric_limits<int32_t>::max());
  if (num_pages < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "state_bytes is ", options.state_bytes, "; a page of this model takes ", bytes_per_page));
  }
  void* data = mmap(nullptr, num_pages * bytes_per_page, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat("state pool of ", num_pages * bytes_per_page,
                                                     " bytes: ", std::strerror(errno)));
  }
  // Decoding reads pages all over the region; with 4 KiB of memory to a TLB entry it took 10 to
  // 20 % longer. Where the system has no huge pages the call fails, which does no harm.
  madvise(data, num_pages * bytes_per_page, MADV_HUGEPAGE);
  return std::unique_ptr<PagePool>(
      new PagePool(options, static_cast<std::byte*>(data), static_cast<int>(num_pages)));
}

PagePool::PagePool(const Options& options, std::byte* data, int num_pages)
    : layout_(options.layout),
      num_layers_(options.num_layers),
      num_pages_(num_pages),
      data_(data),
      free_(num_pages) {
  std::iota(free_.rbegin(), free_.rend(), 0);
}

PagePool::~PagePool() { munmap(data_, int64_t{num_pages_} * num_layers_ * layout_.page_bytes()); }

int32_t PagePool::Take() {
  const int32_t page = free_.back();
  free_.pop_back();
  return page;
}

StatePool PagePool::state() const {
  return {layout_.page_bytes() * num_layers_, num_pages_, num_free()};
}

PageStore PagePool::layer(int layer_index) const {
  return {layout_, data_ + int64_t{layer_index} * num_pages_ * layout_.page_bytes(), num_pages_};
}

}  // namespace evaserve
