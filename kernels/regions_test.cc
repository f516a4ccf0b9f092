#include "kernels/regions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

namespace evaserve {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;

RegionShape Sequence(int tokens, int window, int num_landmarks, bool overlap) {
  return {1, tokens, window, num_landmarks, overlap, /*is_2d=*/false};
}

RegionShape Map(int height, int width, int window, int num_landmarks, bool overlap) {
  return {height, width, window, num_landmarks, overlap, /*is_2d=*/true};
}

Regions Make(const RegionShape& shape) {
  const absl::StatusOr<Regions> regions = MakeRegions(shape);
  EXPECT_TRUE(regions.ok()) << regions.status();
  EXPECT_TRUE(Validate(*regions).ok());
  return *regions;
}

std::string Error(const RegionShape& shape) {
  return std::string(MakeRegions(shape).status().message());
}

TEST(RegionsTest, ASequenceIsPaddedToWholeWindows) {
  const Regions regions = Make(Sequence(6, /*window=*/4, /*num_landmarks=*/4, false));
  EXPECT_EQ(regions.num_windows, 2);
  EXPECT_THAT(regions.queries, ElementsAre(0, 1, 2, 3, 4, 5, -1, -1));
  EXPECT_EQ(regions.keys, regions.queries);
  EXPECT_EQ(regions.num_chunks, 4);
  EXPECT_THAT(regions.members, ElementsAre(0, 1, 2, 3, 4, 5, -1, -1));
}

TEST(RegionsTest, AMarginReachesHalfAWindowToBothSides) {
  const Regions regions = Make(Sequence(8, /*window=*/4, /*num_landmarks=*/4, true));
  EXPECT_THAT(regions.keys_of(0), ElementsAre(-1, -1, 0, 1, 2, 3, 4, 5));
  EXPECT_THAT(regions.keys_of(1), ElementsAre(2, 3, 4, 5, 6, 7, -1, -1));
  EXPECT_THAT(regions.members_of(1), ElementsAre(0, 1, 2, 3, 4, 5));
}

TEST(RegionsTest, AWindowOfOneTokenHasAMarginOfOne) {
  const Regions regions = Make(Sequence(3, /*window=*/1, /*num_landmarks=*/3, true));
  EXPECT_THAT(regions.keys, ElementsAre(-1, 0, 1, 0, 1, 2, 1, 2, -1));
}

// 56 tokens for 16 landmarks: chunks of 3, of which there are 18, and 2 tokens without their own.
TEST(RegionsTest, OverlapMayMakeMoreChunksThanLandmarksAndLeaveARemainder) {
  const Regions regions = Make(Sequence(56, /*window=*/8, /*num_landmarks=*/16, true));
  EXPECT_EQ(regions.num_chunks, 18);
  EXPECT_EQ(regions.chunk_members, 3 + 2 * 4);
  EXPECT_THAT(regions.members_of(17), ElementsAre(47, 48, 49, 50, 51, 52, 53, 54, 55, -1, -1));
}

TEST(RegionsTest, ShortSequencesHaveChunksOfPaddingAlone) {
  const Regions regions = Make(Sequence(5, /*window=*/16, /*num_landmarks=*/4, false));
  EXPECT_EQ(regions.num_chunks, 4);
  EXPECT_THAT(regions.members_of(1), ElementsAre(4, -1, -1, -1));
  EXPECT_THAT(regions.members_of(3), Each(-1));
}

TEST(RegionsTest, SquaresOfAMapGoRowByRow) {
  const Regions regions = Make(Map(4, 6, /*window=*/2, /*num_landmarks=*/6, false));
  EXPECT_EQ(regions.num_windows, 6);
  EXPECT_THAT(regions.queries_of(0), ElementsAre(0, 1, 6, 7));
  EXPECT_THAT(regions.queries_of(1), ElementsAre(2, 3, 8, 9));
  EXPECT_THAT(regions.queries_of(3), ElementsAre(12, 13, 18, 19));
  EXPECT_EQ(regions.keys, regions.queries);
  EXPECT_EQ(regions.members, regions.queries);
}

TEST(RegionsTest, AMarginOfAMapGoesAllAround) {
  const Regions regions = Make(Map(4, 4, /*window=*/2, /*num_landmarks=*/4, true));
  EXPECT_THAT(regions.keys_of(0),
              ElementsAre(-1, -1, -1, -1, -1, 0, 1, 2, -1, 4, 5, 6, -1, 8, 9, 10));
  EXPECT_THAT(regions.keys_of(3),
              ElementsAre(5, 6, 7, -1, 9, 10, 11, -1, 13, 14, 15, -1, -1, -1, -1, -1));
}

// DeiT at patch 8 and at patch 16, and 96 tokens for 6 landmarks: 16, a side of 4.
TEST(RegionsTest, ChunksOfAMapHaveTheRootOfTheirTokensAsSide) {
  EXPECT_EQ(Make(Map(28, 28, 7, 49, false)).chunk_members, 16);
  EXPECT_EQ(Make(Map(14, 14, 7, 49, false)).chunk_members, 4);
  EXPECT_EQ(Make(Map(12, 8, 4, 6, false)).num_chunks, 6);
  EXPECT_EQ(Map(14, 14, 7, 50, false).chunk(), 1);
}

TEST(RegionsTest, EveryTokenIsTheQueryOfOneWindow) {
  for (const RegionShape& shape : {Sequence(61, 8, 8, true), Map(14, 21, 7, 3, true)}) {
    const Regions regions = Make(shape);
    std::vector<int> seen(regions.num_tokens);
    for (const int token : regions.queries) {
      if (token >= 0) ++seen[token];
    }
    EXPECT_THAT(seen, Each(1));
  }
}

TEST(RegionsValidateTest, NamesFieldsOutOfRange) {
  EXPECT_EQ(Error(Sequence(0, 4, 4, false)), "width is 0, must be at least 1");
  EXPECT_EQ(Error(Sequence(8, 0, 4, false)), "window is 0, must be at least 1");
  EXPECT_EQ(Error(Sequence(8, 4, 0, false)), "num_landmarks is 0, must be at least 1");
  EXPECT_EQ(Error({2, 8, 4, 4, false, false}), "height is 2, must be 1 in a sequence");
  EXPECT_EQ(Error(Map(0, 8, 4, 4, false)), "height is 0, must be at least 1");
  EXPECT_THAT(Error(Sequence(1 << 25, 4, 4, false)), HasSubstr("more than 16777216 tokens"));
}

TEST(RegionsValidateTest, NamesWhatDoesNotDivide) {
  EXPECT_EQ(Error(Map(6, 8, 4, 4, false)), "height is 6, must be a multiple of window, 4");
  EXPECT_EQ(Error(Map(8, 6, 4, 4, false)), "width is 6, must be a multiple of window, 4");
  EXPECT_EQ(Error(Sequence(56, 8, 16, false)),
            "num_landmarks is 16, must be such that chunks of 3 divide 56 tokens, unless there is "
            "overlap");
  EXPECT_THAT(Error(Map(8, 8, 4, 6, false)), HasSubstr("chunks of 3 divide 8 x 8 tokens"));
}

TEST(RegionsValidateTest, NamesLandmarksThatTheTokensLack) {
  EXPECT_EQ(Error(Sequence(6, 4, 9, true)),
            "num_landmarks is 9, must be at most the number of tokens, 8");
}

TEST(RegionsValidateTest, RefusesChunksThatAreLargerThanTheMap) {
  EXPECT_EQ(Error(Map(2, 200, 2, 1, true)),
            "num_landmarks is 1, must be such that chunks of 20 fit a map of 2 x 200");
}

TEST(RegionsValidateTest, RefusesTablesOfAbsurdSize) {
  EXPECT_THAT(Error(Sequence(1 << 20, 1 << 20, 1 << 20, true)), HasSubstr("at most 67108864"));
}

TEST(RegionsValidateTest, NamesTheTableThatIsWrong) {
  Regions regions = Make(Sequence(8, 4, 4, false));
  regions.keys[3] = 8;
  EXPECT_EQ(Validate(regions).message(), "keys[3] is 8, must be -1 or in [0, 8)");
  regions.keys.pop_back();
  EXPECT_EQ(Validate(regions).message(), "keys has 7 entries, must have 2 x 4");
}

}  // namespace
}  // namespace evaserve
