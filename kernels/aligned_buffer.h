#pragma once

#include <cstddef>
#include <limits>
#include <new>

#include "kernels/aligned_memory.h"

namespace evaserve {

// Memory that grows and never shrinks, so that a steady load allocates nothing. 64-byte aligned,
// uninitialised. Not thread-safe.
class AlignedBuffer {
 public:
  // At least `bytes`; a later call may move them and loses their contents. Throws std::bad_alloc if
  // there is no memory, as a std::vector does.
  void* Get(size_t bytes) {
    if (bytes > size_) Grow(bytes);
    return data_.get();
  }

 private:
  static constexpr size_t kGrain = 4096;  // of what is small

  void Grow(size_t bytes) {
    data_.reset();  // first, as nobody needs both
    size_ = 0;
    if (bytes > std::numeric_limits<ptrdiff_t>::max() - kHugePage) throw std::bad_alloc();
    const size_t grain = bytes < kHugePage ? kGrain : kHugePage;
    const size_t rounded = (bytes + grain - 1) / grain * grain;
    data_ = AllocateAligned(rounded);
    size_ = rounded;
  }

  AlignedMemory data_;
  size_t size_ = 0;
};

}  // namespace evaserve
