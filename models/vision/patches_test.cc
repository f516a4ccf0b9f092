#include "models/vision/patches.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace evaserve {
namespace {

using ::testing::ElementsAre;

std::vector<float> Numbers(int count) {
  std::vector<float> numbers(count);
  std::iota(numbers.begin(), numbers.end(), 0.f);
  return numbers;
}

TEST(GatherPatchesTest, CutsAMapIntoSquares) {
  const std::vector<float> map = Numbers(2 * 2 * 4);  // [channels, height, width]
  std::vector<float> rows(2 * 8);
  GatherPatches({.x = map.data(),
                 .channel_stride = 8,
                 .row_stride = 4,
                 .column_stride = 1,
                 .channels = 2,
                 .height = 2,
                 .width = 4,
                 .kernel = 2,
                 .stride = 2,
                 .y = rows.data()});
  EXPECT_THAT(rows, ElementsAre(0, 1, 4, 5, 8, 9, 12, 13,  //
                                2, 3, 6, 7, 10, 11, 14, 15));
}

TEST(GatherPatchesTest, TakesChannelsThatLieTogetherAndPadsWithZeros) {
  const std::vector<float> map = Numbers(2 * 2 * 2);  // [height, width, channels]
  const PatchesParams params{.x = map.data(),
                             .channel_stride = 1,
                             .row_stride = 4,
                             .column_stride = 2,
                             .channels = 2,
                             .height = 2,
                             .width = 2,
                             .kernel = 3,
                             .stride = 2,
                             .padding = 1};
  EXPECT_EQ(params.out_height(), 1);
  EXPECT_EQ(params.out_width(), 1);
  std::vector<float> row(18);
  PatchesParams with_result = params;
  with_result.y = row.data();
  GatherPatches(with_result);
  EXPECT_THAT(row, ElementsAre(0, 0, 0, 0, 0, 2, 0, 4, 6,  //
                               0, 0, 0, 0, 1, 3, 0, 5, 7));
}

}  // namespace
}  // namespace evaserve
