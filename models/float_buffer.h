#pragma once

#include <cstddef>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>

namespace evaserve {

// Float scratch memory that grows and never shrinks, so that a steady load allocates nothing.
// 64-byte aligned, uninitialised. Not thread-safe.
class FloatBuffer {
 public:
  // At least `size` floats; a later call may move them and loses their contents. Throws
  // std::bad_alloc if there is no memory, as a std::vector does (memory_guard.h).
  float* Get(size_t size) {
    if (size > size_) Grow(size);
    return data_.get();
  }

 private:
  static constexpr size_t kGrain = 1024;
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };

  void Grow(size_t size) {
    data_.reset();  // first, as nobody needs both
    size_ = 0;
    if (size > std::numeric_limits<ptrdiff_t>::max() / sizeof(float) - kGrain) {
      throw std::bad_alloc();
    }
    const size_t rounded = (size + kGrain - 1) / kGrain * kGrain;
    data_.reset(static_cast<float*>(std::aligned_alloc(64, rounded * sizeof(float))));
    if (data_ == nullptr) throw std::bad_alloc();
    size_ = rounded;
  }

  std::unique_ptr<float, Free> data_;
  size_t size_ = 0;
};

}  // namespace evaserve
