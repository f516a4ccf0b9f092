#pragma once

#include <cstddef>
#include <limits>
#include <new>

#include "kernels/aligned_buffer.h"

namespace evaserve {

// An AlignedBuffer of floats.
class FloatBuffer {
 public:
  float* Get(size_t size) {
    if (size > std::numeric_limits<size_t>::max() / sizeof(float)) throw std::bad_alloc();
    return static_cast<float*>(buffer_.Get(size * sizeof(float)));
  }

 private:
  AlignedBuffer buffer_;
};

}  // namespace evaserve
