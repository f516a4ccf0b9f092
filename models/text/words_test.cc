#include "models/text/words.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace evaserve {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(SplitWordsTest, SplitsAtRunsOfWhiteSpace) {
  EXPECT_THAT(SplitWords(" the  cat\tsat\r"), ElementsAre("the", "cat", "sat"));
  EXPECT_THAT(SplitWords("one"), ElementsAre("one"));
  EXPECT_THAT(SplitWords(" \t "), IsEmpty());
  EXPECT_THAT(SplitWords(""), IsEmpty());
}

TEST(SplitWordsTest, KnowsUnicodesWhiteSpace) {
  EXPECT_THAT(SplitWords("10\u00a0km\u3000\u2009b\u2028"), ElementsAre("10", "km", "b"));
  // A zero-width space is none, nor are characters that begin with the same bytes.
  EXPECT_THAT(SplitWords("a\u200bb \u00a1 \u2010"), ElementsAre("a\u200bb", "\u00a1", "\u2010"));
}

TEST(SplitWordsTest, BytesThatAreNoUtf8BelongToWords) {
  EXPECT_THAT(SplitWords("\xff\xc2 \xe2\x80"), ElementsAre("\xff\xc2", "\xe2\x80"));
}

}  // namespace
}  // namespace evaserve
