#include "kernels/aligned_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <new>

namespace evaserve {
namespace {

constexpr size_t kAlignment = 64;

// A sanitizer watches only what it allocates itself.
#ifdef __SANITIZE_ADDRESS__
constexpr size_t kMappedFrom = std::numeric_limits<size_t>::max();
#else
constexpr size_t kMappedFrom = kHugePage;
#endif

size_t RoundUp(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

// At the beginning of a huge page. Null if there is no memory.
void* Map(size_t bytes) {
  // The system need not align what it maps: more, of which the ends are given back.
  void* const mapped =
      mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* const begin = static_cast<std::byte*>(mapped);
  const auto address = reinterpret_cast<uintptr_t>(mapped);
  const size_t before = RoundUp(address, kHugePage) - address;
  std::byte* const data = begin + before;
  if (before > 0) munmap(begin, before);
  if (before < kHugePage) munmap(data + bytes, kHugePage - before);
  // Only whole ones, so that none is wasted. Where the system has no huge pages the call fails,
  // which does no harm.
  madvise(data, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
  return data;
}

}  // namespace

void FreeAligned::operator()(void* memory) const {
  if (mapped_bytes == 0) {
    std::free(memory);
  } else {
    munmap(memory, mapped_bytes);
  }
}

AlignedMemory AllocateAligned(size_t bytes) {
  if (bytes > std::numeric_limits<ptrdiff_t>::max() / 2) throw std::bad_alloc();
  AlignedMemory memory;
  if (bytes >= kMappedFrom) {
    const size_t rounded = RoundUp(bytes, static_cast<size_t>(sysconf(_SC_PAGESIZE)));
    memory = AlignedMemory(Map(rounded), {rounded});
  } else {
    memory = AlignedMemory(
        std::aligned_alloc(kAlignment, RoundUp(std::max(bytes, size_t{1}), kAlignment)));
  }
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace evaserve
