#pragma once

#include <cstddef>
#include <memory>

namespace evaserve {

// Gives back what AllocateAligned() took.
struct FreeAligned {
  size_t mapped_bytes = 0;  // 0: it is malloc's
  void operator()(void* memory) const;
};
using AlignedMemory = std::unique_ptr<void, FreeAligned>;

// 64-byte aligned, uninitialised. What is large lies in huge pages, where the system has them, and
// its end gives it back to the system. Throws std::bad_alloc if there is no memory.
AlignedMemory AllocateAligned(size_t bytes);

}  // namespace evaserve
