#include "kernels/aligned_memory.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <limits>
#include <new>

namespace evaserve {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kPage = 4096;
constexpr size_t kHugePage = size_t{2} << 20;

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
  if (bytes >= kHugePage) {
    const size_t rounded = RoundUp(bytes, kPage);
    memory = AlignedMemory(Map(rounded), {rounded});
  } else {
    memory = AlignedMemory(std::aligned_alloc(kAlignment, RoundUp(bytes, kAlignment)));
  }
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace evaserve
