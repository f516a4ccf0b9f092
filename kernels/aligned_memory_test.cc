#include "kernels/aligned_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <new>

namespace evaserve {
namespace {

TEST(AlignedMemoryTest, IsAlignedAndAllOfItCanBeWritten) {
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{100}, kHugePage - 1, kHugePage,
                             kHugePage + 1, 3 * kHugePage + 5000}) {
    const AlignedMemory memory = AllocateAligned(bytes);
    ASSERT_NE(memory, nullptr) << bytes;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.get()) % 64, 0u) << bytes;
    std::memset(memory.get(), 1, bytes);
  }
}

#ifndef __SANITIZE_ADDRESS__
TEST(AlignedMemoryTest, WhatIsLargeBeginsAtAHugePageAndIsGivenBack) {
  AlignedMemory memory = AllocateAligned(2 * kHugePage + 1);
  void* const begin = memory.get();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(begin) % kHugePage, 0u);
  unsigned char is_resident[1];
  EXPECT_EQ(mincore(begin, 1, is_resident), 0);

  memory.reset();

  EXPECT_EQ(mincore(begin, 1, is_resident), -1) << "nothing is mapped there";
}
#endif

TEST(AlignedMemoryTest, MoreThanThereCanBeIsAnError) {
  EXPECT_THROW(AllocateAligned(std::numeric_limits<size_t>::max()), std::bad_alloc);
  EXPECT_THROW(AllocateAligned(size_t{1} << 60), std::bad_alloc);
}

}  // namespace
}  // namespace evaserve
