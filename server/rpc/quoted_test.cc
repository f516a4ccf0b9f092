#include "server/rpc/quoted.h"

#include <gtest/gtest.h>

namespace evaserve {
namespace {

TEST(QuotedTest, LeavesWhatIsShortAndUtf8) {
  EXPECT_EQ(Quoted(""), "");
  EXPECT_EQ(Quoted("Zürich, 東京 🎉"), "Zürich, 東京 🎉");
}

TEST(QuotedTest, CutsBetweenCharacters) {
  const std::string most(62, 'a');
  EXPECT_EQ(Quoted(most + "aaa"), most + "aa");
  EXPECT_EQ(Quoted(most + "éa"), most + "é");
  EXPECT_EQ(Quoted(most + "東京"), most);
}

TEST(QuotedTest, ReplacesWhatIsNotUtf8) {
  EXPECT_EQ(Quoted("a\xFF\xC3z\xE6\x9D"), "a\uFFFD\uFFFDz\uFFFD\uFFFD");
}

TEST(QuotedTest, TheLimitIsOfTheResult) {
  EXPECT_EQ(AsUtf8("\xFF\xFF\xFF", 7), "\uFFFD\uFFFD");
  EXPECT_EQ(AsUtf8(std::string(2000, '\xFF')).size(), 6000u);
}

}  // namespace
}  // namespace evaserve
