#pragma once

#include <cstddef>
#include <memory>

namespace evaserve {

// Gives back what AllocateAligned() took.
struct FreeAligned {
  size_t mapped_bytes = 0;  // 0: from aligned_alloc()
  void operator()(void* memory) const;
};
using AlignedMemory = std::unique_ptr<void, FreeAligned>;

inline constexpr size_t kHugePage = size_t{2} << 20;

// 64-byte aligned, uninitialised. From kHugePage on it is mapped, in huge pages where the system
// has them, and unmapped when freed. Throws std::bad_alloc if there is no memory.
AlignedMemory AllocateAligned(size_t bytes);

}  // namespace evaserve
