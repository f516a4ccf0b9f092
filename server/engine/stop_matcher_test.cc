#include "server/engine/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace evaserve {
namespace {

TEST(StopMatcherTest, LetsTextThroughWithoutStopStrings) {
  StopMatcher matcher({}, /*include_stop=*/false);

  EXPECT_EQ(matcher.Push("abc"), "abc");
  EXPECT_EQ(matcher.Push(""), "");
  EXPECT_EQ(matcher.Push("d"), "d");
  EXPECT_EQ(matcher.Push("", /*is_last=*/true), "");
}

TEST(StopMatcherTest, HoldsBackOnlyWhatMayBecomeAMatch) {
  StopMatcher matcher({"\n\n"}, /*include_stop=*/false);

  EXPECT_EQ(matcher.Push("a\n"), "a");
  EXPECT_EQ(matcher.Push("b"), "\nb");
  EXPECT_FALSE(matcher.match().has_value());
}

TEST(StopMatcherTest, EndsTheTextBeforeTheStopString) {
  StopMatcher matcher({"END"}, /*include_stop=*/false);

  EXPECT_EQ(matcher.Push("abE"), "ab");
  EXPECT_EQ(matcher.Push("NDcd"), "");
  EXPECT_EQ(matcher.match(), "END");
  EXPECT_EQ(matcher.Push("more", /*is_last=*/true), "");
}

TEST(StopMatcherTest, KeepsTheStopStringWithIncludeStop) {
  StopMatcher matcher({"END"}, /*include_stop=*/true);

  EXPECT_EQ(matcher.Push("abEN"), "ab");
  EXPECT_EQ(matcher.Push("Dcd"), "END");
  EXPECT_EQ(matcher.match(), "END");
}

TEST(StopMatcherTest, FirstCompleteStopStringWins) {
  StopMatcher matcher({"abcd", "bc"}, /*include_stop=*/false);

  EXPECT_EQ(matcher.Push("xabcd"), "xa");
  EXPECT_EQ(matcher.match(), "bc");
}

TEST(StopMatcherTest, LongestWinsWhenSeveralEndAtTheSameByte) {
  StopMatcher matcher({"c", "abc", "bc"}, /*include_stop=*/false);

  EXPECT_EQ(matcher.Push("xabc"), "x");
  EXPECT_EQ(matcher.match(), "abc");
}

TEST(StopMatcherTest, FallsBackInsideAStopStringThatRepeatsItself) {
  StopMatcher matcher({"aab"}, /*include_stop=*/false);

  EXPECT_EQ(matcher.Push("aa"), "");
  EXPECT_EQ(matcher.Push("a"), "a");
  EXPECT_EQ(matcher.Push("b"), "");
  EXPECT_EQ(matcher.match(), "aab");
}

TEST(StopMatcherTest, HoldsNothingBackAtTheEnd) {
  StopMatcher matcher({"abc"}, /*include_stop=*/false);

  EXPECT_EQ(matcher.Push("xa"), "x");
  EXPECT_EQ(matcher.Push("b", /*is_last=*/true), "ab");
  EXPECT_FALSE(matcher.match().has_value());
}

TEST(StopMatcherTest, MatchesAnyBytes) {
  StopMatcher matcher({std::string("\0\xff", 2)}, /*include_stop=*/false);

  EXPECT_EQ(matcher.Push(std::string("a\0", 2)), "a");
  EXPECT_EQ(matcher.Push("\xff"), "");
  EXPECT_TRUE(matcher.match().has_value());
}

// What the class is meant to do, by trying everything.
struct NaiveResult {
  std::string text;
  std::string match;
};

NaiveResult NaiveSearch(const std::string& text, const std::vector<std::string>& stops,
                        bool include_stop) {
  for (size_t end = 1; end <= text.size(); ++end) {
    std::string longest;
    for (const std::string& stop : stops) {
      const bool ends_here = text.substr(0, end).ends_with(stop);
      if (ends_here && stop.size() > longest.size()) longest = stop;
    }
    if (longest.empty()) continue;
    return {text.substr(0, include_stop ? end : end - longest.size()), longest};
  }
  return {text, ""};
}

// The most that may have been let out when `text` has come and nothing has matched yet.
size_t NaiveReleased(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t begin = 0; begin < text.size(); ++begin) {
    for (const std::string& stop : stops) {
      if (stop.starts_with(text.substr(begin))) return begin;
    }
  }
  return text.size();
}

std::string RandomString(std::mt19937& random, int min_size, int max_size) {
  std::string result(std::uniform_int_distribution(min_size, max_size)(random), 'a');
  for (char& c : result) c += std::uniform_int_distribution(0, 1)(random);
  return result;
}

// Two letters and short strings, so that matches, near misses and overlaps are all frequent.
TEST(StopMatcherTest, AgreesWithANaiveSearchOnRandomTexts) {
  std::mt19937 random(1);
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> stops(std::uniform_int_distribution(0, 3)(random));
    for (std::string& stop : stops) stop = RandomString(random, 1, 6);
    const std::string text = RandomString(random, 0, 24);
    const bool include_stop = round % 2 == 0;
    const NaiveResult expected = NaiveSearch(text, stops, include_stop);

    StopMatcher matcher(stops, include_stop);
    std::string got;
    for (size_t begin = 0; begin < text.size();) {
      const size_t size = std::uniform_int_distribution(0, 4)(random);
      got += matcher.Push(std::string_view(text).substr(begin, size));
      begin = std::min(begin + size, text.size());
      if (matcher.match()) break;
      ASSERT_EQ(got.size(), NaiveReleased(text.substr(0, begin), stops)) << text;
    }
    got += matcher.Push("", /*is_last=*/true);

    ASSERT_EQ(got, expected.text) << text;
    ASSERT_EQ(matcher.match().value_or(""), expected.match) << text;
  }
}

}  // namespace
}  // namespace evaserve
