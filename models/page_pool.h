#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/page_layout.h"
#include "models/model.h"

namespace evaserve {

// The pages that the sequences of one model share. A page has the same number in every layer, so a
// sequence keeps one list for all of them.
//
// The memory is one region of virtual addresses; a page takes real memory when it is first written,
// and the page freed last is handed out first, so what is resident is the most that was ever used.
// Not thread-safe.
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

  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;
  ~PagePool();

  // Takes a page; there must be a free one.
  int32_t Take();
  void Free(int32_t page) { free_.push_back(page); }

  int num_free() const { return static_cast<int>(free_.size()); }
  StatePool state() const;

  // The pages of one layer.
  PageStore layer(int layer_index) const;

 private:
  PagePool(const Options& options, std::byte* data, int num_pages);

  const PageLayout layout_;
  const int num_layers_;
  const int num_pages_;
  std::byte* const data_;  // [num_layers][num_pages][page_bytes]
  std::vector<int32_t> free_;
};

}  // namespace evaserve
