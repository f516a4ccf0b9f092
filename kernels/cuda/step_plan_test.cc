#include "kernels/cuda/step_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>
#include <string>

namespace evaserve {
namespace {

using ::testing::HasSubstr;

constexpr int kNumPages = 1000;

// Sequences of one query each, with the slots that they see.
struct Batch {
  explicit Batch(std::span<const int> num_slots) {
    for (const int n : num_slots) {
      const PageList list = pages.emplace_back(CudaPagesOf(n), next_page++);
      const int row = static_cast<int>(attends.size());
      attends.push_back({{.summary_pages = {}, .window_pages = list, .num_window = n}, row, 1});
      stores.push_back({.token_begin = row,
                        .num_tokens = 1,
                        .window_pages = list,
                        .slot_begin = n - 1,
                        .summarize = false});
      positions.push_back(n - 1);
    }
  }
  Batch(std::initializer_list<int> num_slots)
      : Batch(std::span(num_slots.begin(), num_slots.end())) {}

  StepInput input() const {
    return {.num_rows = static_cast<int>(positions.size()),
            .positions = positions,
            .tokens = positions,
            .stores = stores,
            .attends = attends};
  }

  int next_page = 0;
  std::deque<std::vector<int32_t>> pages;
  std::vector<AttendSequence> attends;
  std::vector<CudaStoreSequence> stores;
  std::vector<int32_t> positions;
};

std::vector<CudaSplit> Cut(const Batch& batch, const SplitOptions& options) {
  return PlanSplits(PlanAttend(batch.attends, kNarrowTileRows), kNarrowTileRows, options);
}

// How many of the device's rounds the splits of all heads take.
int Waves(size_t num_splits, const SplitOptions& options) {
  return static_cast<int>((num_splits * options.num_heads + options.num_blocks - 1) /
                          options.num_blocks);
}

TEST(PlanSplitsTest, CutsEveryTileIntoNeighbouringParts) {
  const Batch batch{3000, 17, 900, 1, 2048};
  const SplitOptions options{.num_heads = 2, .num_blocks = 40, .min_slots = 64};
  const std::vector<CudaSplit> splits = Cut(batch, options);
  std::vector<int> ends(batch.attends.size()), counts(batch.attends.size());
  for (const CudaSplit& split : splits) {
    EXPECT_EQ(split.block_begin, ends[split.tile]);
    EXPECT_GT(split.block_end, split.block_begin);
    EXPECT_EQ(split.index, counts[split.tile]++);
    ends[split.tile] = split.block_end;
  }
  for (const CudaSplit& split : splits) EXPECT_EQ(split.num_splits, counts[split.tile]);
  // Tiles are in the order of what they see.
  EXPECT_EQ(ends, (std::vector<int>{188, 128, 57, 2, 1}));
  EXPECT_LE(std::ssize(splits), MaxSplits(5, options));
}

// A lone sequence must keep all blocks busy, and none twice.
TEST(PlanSplitsTest, ALongSequenceTakesOneRoundOfAllBlocks) {
  const SplitOptions options{.num_heads = 32, .num_blocks = 264};
  const size_t num_splits = Cut({6000}, options).size();
  EXPECT_EQ(num_splits, 8u);
  EXPECT_EQ(Waves(num_splits, options), 1);
}

// 9 sequences of 32 heads are 288 pieces for 264 blocks: uncut, the second round would be empty but
// for 24.
TEST(PlanSplitsTest, FillsTheLastRound) {
  const SplitOptions options{.num_heads = 32, .num_blocks = 264};
  const size_t num_splits = Cut(Batch(std::vector<int>(9, 2048)), options).size();
  const double work = 9. * 32 * 128, rounds = Waves(num_splits, options);
  const double longest = 9. * 128 / static_cast<double>(num_splits);
  EXPECT_GT(work / (rounds * 264 * longest), 0.8);
}

TEST(PlanSplitsTest, LeavesShortSequencesWhole) {
  EXPECT_EQ(Cut({200, 100, 8}, {.num_heads = 2, .num_blocks = 264}).size(), 3u);
}

class StepRoomTest : public testing::Test {
 protected:
  static constexpr StepOptions kOptions = {.shape = {DType::kBFloat16, 64},
                                           .num_heads = 2,
                                           .chunk = 16,
                                           .compute_capability = 90,
                                           .num_multiprocessors = 8,
                                           .num_narrow_blocks = 16};
  static constexpr StepRoom kRoom = {.num_rows = 4, .pages_per_row = 3};

  static StepPlan MakePlan(const Batch& batch) {
    auto plan = StepPlan::Make(kOptions, batch.input(), kNumPages, &kRoom);
    EXPECT_TRUE(plan.ok()) << plan.status();
    return *std::move(plan);
  }
};

TEST_F(StepRoomTest, AllPlansNeedTheSameMemory) {
  const StepPlan none = MakePlan({}), some = MakePlan({1, 300}), full = MakePlan({9, 384, 1, 1});
  for (const StepPlan* plan : {&some, &full}) {
    EXPECT_EQ(plan->bytes().size(), none.bytes().size());
    EXPECT_EQ(plan->num_arrived(), none.num_arrived());
    EXPECT_EQ(plan->num_partial_floats(), none.num_partial_floats());
    EXPECT_EQ(plan->tokens({}), none.tokens({}));
  }
}

TEST_F(StepRoomTest, SaysWhatDoesNotFit) {
  const auto error = [](const Batch& batch) {
    return std::string(
        StepPlan::Make(kOptions, batch.input(), kNumPages, &kRoom).status().message());
  };
  EXPECT_THAT(error({1, 2, 3, 4, 5}), HasSubstr("num_rows is 5; there is room for 4"));
  EXPECT_THAT(error({1, 385}), HasSubstr("attends[1]: 1 queries and 4 pages; there is room for 1"));
  Batch batch{7};
  batch.attends[0].num_queries = 2;
  batch.attends[0].slots.num_window = 8;
  batch.positions.push_back(8);
  EXPECT_THAT(error(batch), HasSubstr("attends[0]: 2 queries"));
}

}  // namespace
}  // namespace evaserve
