#pragma once

namespace evaserve {

// For std::unique_ptr: frees what a C library has made, with its function for that.
template <auto free>
struct FreeWith {
  template <typename T>
  void operator()(T* object) const {
    free(object);
  }
};

}  // namespace evaserve
