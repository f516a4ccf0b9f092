#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>

namespace evaserve {

// Float scratch memory that grows and never shrinks, so that a steady load allocates nothing.
// 64-byte aligned, uninitialised. Not thread-safe.
class FloatBuffer {
 public:
  // At least `size` floats; a later call may move them and loses their contents.
  float* Get(size_t size) {
    if (size > size_) {
      size_ = (size + kGrain - 1) / kGrain * kGrain;
      data_.reset(static_cast<float*>(std::aligned_alloc(64, size_ * sizeof(float))));
    }
    return data_.get();
  }

 private:
  static constexpr size_t kGrain = 1024;
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };

  std::unique_ptr<float, Free> data_;
  size_t size_ = 0;
};

}  // namespace evaserve
