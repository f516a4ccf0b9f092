#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"

namespace evaserve {

// A region of virtual addresses, page-aligned, which takes real memory where it is first written.
// Move-only.
class LazyMemory {
 public:
  // ResourceExhausted if the system has no address space left.
  static absl::StatusOr<LazyMemory> Create(int64_t bytes);

  LazyMemory(LazyMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}
  LazyMemory& operator=(LazyMemory&&) = delete;
  ~LazyMemory();

  std::byte* data() const { return data_; }

  // Gives the real memory of the pages that lie in [begin, begin + bytes) back; then they are as if
  // never written.
  void GiveBack(int64_t begin, int64_t bytes);

 private:
  LazyMemory(std::byte* data, int64_t bytes) : data_(data), bytes_(bytes) {}

  std::byte* data_;
  int64_t bytes_;
};

}  // namespace evaserve
