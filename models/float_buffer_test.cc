#include "models/float_buffer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace evaserve {
namespace {

TEST(FloatBufferTest, IsAlignedAndStaysWhereItIsUnlessItGrows) {
  FloatBuffer buffer;
  float* const data = buffer.Get(1000);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % 64, 0u);
  std::fill_n(data, 1000, 1.f);
  EXPECT_EQ(buffer.Get(10), data);
  std::fill_n(buffer.Get(100'000), 100'000, 1.f);
}

TEST(FloatBufferTest, ThrowsWithoutMemoryAndCanBeUsedAgain) {
  std::vector<size_t> sizes = {SIZE_MAX / 8, SIZE_MAX / 2, SIZE_MAX};
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // whose allocators end here
  sizes.push_back(size_t{1} << 55);
#endif
  FloatBuffer buffer;
  for (const size_t size : sizes) {
    EXPECT_THROW(buffer.Get(size), std::bad_alloc);
    std::fill_n(buffer.Get(1000), 1000, 1.f);
  }
}

}  // namespace
}  // namespace evaserve
