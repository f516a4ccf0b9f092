#include "server/heap.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "server/metrics/process_metrics.h"

namespace evaserve {
namespace {

constexpr int kBlocks = 100'000;
constexpr int kBlockBytes = 1'000;
constexpr int64_t kSlackBytes = 30'000'000;

// Leaves the last of many blocks alive, behind which the allocator keeps the others.
std::unique_ptr<char[]> AllocateAndFree() {
  std::vector<std::unique_ptr<char[]>> blocks(kBlocks);
  for (auto& block : blocks) {
    block = std::make_unique<char[]>(kBlockBytes);
    std::memset(block.get(), 1, kBlockBytes);
  }
  return std::move(blocks.back());
}

TEST(HeapTrimmerTest, GivesBackWhatWasFreed) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer's allocator";
#endif
  HeapTrimmer heap;
  const int64_t before = ResidentBytes();
  for (int round = 0; round < 2; ++round) {  // also once some was kept before
    const std::unique_ptr<char[]> last = AllocateAndFree();
    ASSERT_GT(ResidentBytes(), before + int64_t{kBlocks} * kBlockBytes / 2);
    heap.Trim();
    EXPECT_LT(ResidentBytes(), before + kSlackBytes);
  }
}

}  // namespace
}  // namespace evaserve
