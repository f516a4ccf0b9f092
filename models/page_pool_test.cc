#include "models/page_pool.h"

#include <set>

#include "gtest/gtest.h"
#include "models/testing/status_matchers.h"

namespace evaserve {
namespace {

constexpr PageLayout kLayout = {DType::kFloat32, 2, 16};

std::unique_ptr<PagePool> MakePool(int num_layers, int num_pages) {
  auto pool =
      PagePool::Create({kLayout, num_layers, kLayout.page_bytes() * num_layers * num_pages});
  EXPECT_TRUE(pool.ok()) << pool.status();
  return *std::move(pool);
}

TEST(PagePoolTest, HandsOutEveryPageOnce) {
  const auto pool = MakePool(3, 5);
  EXPECT_EQ(pool->allocator().state().total_pages, 5);
  EXPECT_EQ(pool->allocator().state().page_bytes, 3 * kLayout.page_bytes());
  std::set<int32_t> pages;
  while (pool->allocator().num_free() > 0) pages.insert(pool->allocator().Take());
  EXPECT_EQ(pages, (std::set<int32_t>{0, 1, 2, 3, 4}));
}

TEST(PagePoolTest, HandsOutThePageFreedLast) {
  const auto pool = MakePool(1, 3);
  const int32_t first = pool->allocator().Take();
  pool->allocator().Take();
  pool->allocator().Free(first);
  EXPECT_EQ(pool->allocator().Take(), first);
  EXPECT_EQ(pool->allocator().state().free_pages, 1);
}

TEST(PagePoolTest, LayersDoNotShareMemory) {
  const auto pool = MakePool(2, 4);
  const PageStore first = pool->layer(0), second = pool->layer(1);
  EXPECT_EQ(second.data - first.data, 4 * kLayout.page_bytes());
  EXPECT_EQ(second.num_pages, 4);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(second.data) % 64, 0u);
}

TEST(PagePoolTest, RefusesLessThanAPage) {
  EXPECT_THAT(PagePool::Create({kLayout, 2, 2 * kLayout.page_bytes() - 1}).status(),
              IsError(absl::StatusCode::kInvalidArgument, "state_bytes"));
}

TEST(PagePoolTest, TakesNoMemoryBeforeItIsUsed) {
  const auto pool = PagePool::Create({kLayout, 1, int64_t{1} << 36});
  EXPECT_TRUE(pool.ok()) << pool.status();
}

TEST(PagePoolTest, SaysWhenTheAddressSpaceIsFull) {
  EXPECT_THAT(PagePool::Create({{DType::kFloat32, 4096, 512}, 1, int64_t{1} << 60}).status(),
              IsError(absl::StatusCode::kResourceExhausted, "state pool"));
}

}  // namespace
}  // namespace evaserve
