#include "kernels/relative_bias.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <set>
#include <string>

namespace evaserve {
namespace {

using testing::ElementsAre;

TEST(RelativeBiasTest, BucketsAreExactNearZeroAndKeepTheirSide) {
  const T5Buckets buckets = T5BucketsFor(/*window=*/32, /*extension=*/16, /*is_causal=*/false);
  EXPECT_EQ(buckets.num_buckets, 24);
  EXPECT_EQ(buckets.max_distance, 48);
  EXPECT_EQ(T5Bucket(0, buckets), 0);
  EXPECT_EQ(T5Bucket(-5, buckets), 5);
  EXPECT_EQ(T5Bucket(5, buckets), 12 + 5);
  EXPECT_EQ(T5Bucket(-1000000, buckets), 11);
  EXPECT_EQ(T5Bucket(1000000, buckets), 23);
}

TEST(RelativeBiasTest, CausalBucketsPutLaterKeysIntoBucketZero) {
  const T5Buckets buckets = T5BucketsFor(128, 0, /*is_causal=*/true);
  EXPECT_EQ(buckets.num_buckets, 64);
  EXPECT_EQ(T5Bucket(7, buckets), 0);
  EXPECT_EQ(T5Bucket(-31, buckets), 31);
  EXPECT_EQ(T5Bucket(-1000, buckets), 63);
}

// As the published code, whose embedding has no such row then.
TEST(RelativeBiasTest, PairsWithoutABucketAreAnError) {
  const auto error = [](int window, int extension, bool is_causal, int queries, int keys) {
    const T5Buckets buckets = T5BucketsFor(window, extension, is_causal);
    const std::vector<float> embedding(buckets.num_buckets);
    return std::string(T5Bias(embedding, 1, 1.f, buckets, queries, keys).status().message());
  };
  const std::string of_three =
      "max_distance is 3, must be above 4: there is no bucket for places 8 apart";
  EXPECT_EQ(error(3, 0, false, 9, 9), of_three);  // a map's window
  EXPECT_EQ(error(2, 1, false, 4, 16),
            "max_distance is 3, must be above 4: there is no bucket for places 11 apart");
  EXPECT_EQ(error(4, 0, false, 16, 16),
            "max_distance is 4, must be above 4: there is no bucket for places 15 apart");
  EXPECT_EQ(error(5, 0, false, 25, 25), "");
  EXPECT_EQ(error(8, 0, true, 8, 8), "");
  EXPECT_EQ(error(8, 0, true, 9, 9),
            "max_distance is 8, must be above 8: there is no bucket for places 8 apart");
}

TEST(RelativeBiasTest, ABiasOfGigabytesIsAnError) {
  const std::vector<float> embedding(64);
  EXPECT_EQ(T5Bias(embedding, 1, 1.f, {64, 256, false}, 1 << 16, 1 << 16).status().message(),
            "a bias of 1 heads x 65536 queries x 65536 keys, must have at most 268435456 numbers");
  EXPECT_EQ(MapBias(embedding, 2, /*window=*/1 << 17, /*extension=*/0).status().message(),
            "a bias of 2 heads x 17179869184 queries x 17179869184 keys, must have at most "
            "268435456 numbers");
}

TEST(RelativeBiasTest, T5BiasIsTheScaledEmbeddingOfEachPair) {
  std::vector<float> embedding(16 * 2);
  std::iota(embedding.begin(), embedding.end(), 0.f);
  const auto bias = T5Bias(embedding, 2, 0.5f, {16, 8, false}, 2, 3);
  // Buckets of 0, 1, 2 and of -1, 0, 1, two heads.
  EXPECT_THAT(*bias, ElementsAre(0, 9, 10, 1, 0, 9, .5, 9.5, 10.5, 1.5, .5, 9.5));
}

// The published table of a window of 7: 97 entries for 169 differences.
TEST(RelativeBiasTest, PairsOfAMapShareEntriesAsPublished) {
  std::vector<float> table(97);
  std::iota(table.begin(), table.end(), 0.f);
  const std::vector<float> bias = MapBias(table, 1, /*window=*/7, /*extension=*/0).value();
  ASSERT_EQ(bias.size(), 49u * 49);
  EXPECT_EQ(bias[0], 6 * 7 + 6);          // a place and itself
  EXPECT_EQ(bias[48], 0);                 // the first query and the last key
  EXPECT_EQ(bias[48 * 49], 12 * 7 + 12);  // the last query and the first key
  EXPECT_EQ(bias[1], 6 * 7 + 5);
  EXPECT_EQ(bias[7], 5 * 7 + 6);
  EXPECT_EQ(std::set<float>(bias.begin(), bias.end()).size(), 97u);
}

TEST(RelativeBiasTest, MapBiasGoesByHeadAndReachesIntoTheMargin) {
  const int entries = 2 * (2 + 1 - 1) * (2 + 2 + 1) + 1;
  std::vector<float> table(entries * 2);
  std::iota(table.begin(), table.end(), 0.f);
  const std::vector<float> bias = MapBias(table, 2, /*window=*/2, /*extension=*/1).value();
  ASSERT_EQ(bias.size(), 2u * 4 * 16);
  // Query (0, 0) and key (-1, -1): three up and left of the furthest, (2, 2).
  EXPECT_EQ(bias[0], (3 * 4 + 3) * 2);
  EXPECT_EQ(bias[64 + 15], 1);
}

TEST(RelativeBiasTest, NamesATableOfAnotherSize) {
  const std::vector<float> numbers(10);
  EXPECT_EQ(MapBias(numbers, 1, 7, 0).status().message(),
            "table has 10 numbers, must have 97 x 1 heads");
  EXPECT_EQ(T5Bias(numbers, 2, 1.f, {16, 8, false}, 2, 2).status().message(),
            "embedding has 10 numbers, must have 16 x 2 heads");
}

}  // namespace
}  // namespace evaserve
