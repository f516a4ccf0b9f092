#include "models/lazy_memory.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace evaserve {

absl::StatusOr<LazyMemory> LazyMemory::Create(int64_t bytes) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("state pool of ", bytes, " bytes: ", std::strerror(errno)));
  }
  // Decoding reads states all over the region; with 4 KiB of memory to a TLB entry it took 10 to
  // 20 % longer. Where the system has no huge pages the call fails, which does no harm.
  madvise(data, bytes, MADV_HUGEPAGE);
  return LazyMemory(static_cast<std::byte*>(data), bytes);
}

LazyMemory::~LazyMemory() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

}  // namespace evaserve
