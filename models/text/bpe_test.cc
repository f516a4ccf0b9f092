#include "models/text/bpe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_join.h"
#include "models/testing/status_matchers.h"
#include "models/testing/temp_dir.h"
#include "models/text/testing/vectors.h"
#include "models/text/utf8.h"

namespace evaserve {
namespace {

using ::testing::ElementsAre;

BytePairEncoding Parse(std::string_view codes) {
  auto bpe = BytePairEncoding::Parse(codes, "bpe.codes");
  EXPECT_TRUE(bpe.ok()) << bpe.status();
  return *std::move(bpe);
}

TEST(BytePairEncodingTest, SplitsAsTheReferenceDoes) {
  const nlohmann::json vectors = ReadVectors("bpe_vectors.json");
  ASSERT_EQ(vectors.size(), 3);
  for (const nlohmann::json& one : vectors) {
    const BytePairEncoding bpe = Parse(one.at("codes").get<std::string>());
    ASSERT_GT(one.at("words").size(), 100);
    for (const nlohmann::json& pair : one.at("words")) {
      const auto word = pair[0].get<std::string>();
      EXPECT_EQ(absl::StrJoin(bpe.Split(word), " "), pair[1].get<std::string>()) << word;
      if (word.ends_with("@@")) continue;  // which nobody can tell from a part
      EXPECT_EQ(BytePairEncoding::Join(pair[1].get<std::string>()), word);
    }
  }
}

TEST(BytePairEncodingTest, TheEarlierMergeComesFirst) {
  EXPECT_THAT(Parse("#version: 0.2\na b\nb c\n").Split("abcx"), ElementsAre("ab@@", "c@@", "x"));
  EXPECT_THAT(Parse("#version: 0.2\nb c\na b\n").Split("abcx"), ElementsAre("a@@", "bc@@", "x"));
  EXPECT_THAT(Parse("#version: 0.2\nb c\nb c\na b\n").Split("abcx"),
              ElementsAre("a@@", "bc@@", "x"));
}

TEST(BytePairEncodingTest, WhatIsNotUtf8IsCharactersToo) {
  const BytePairEncoding bpe = Parse("#version: 0.2\nü b\n");
  EXPECT_THAT(bpe.Split("\xffüb\xc3!"), ElementsAre("\xff@@", "üb@@", "\xc3@@", "!"));
}

TEST(BytePairEncodingTest, ALongWordTakesNoLonger) {
  std::string codes = "#version: 0.2\na a\n", symbol = "aa";
  for (int i = 0; i < 12; ++i, symbol += symbol) codes += symbol + " " + symbol + "\n";
  const std::string word(200000, 'a');
  EXPECT_LE(Parse(codes).Split(word).size(), 200000 / 8192 + 12);
}

TEST(BytePairEncodingTest, JoinsWhatIsCutOffToo) {
  EXPECT_EQ(BytePairEncoding::Join("a@@ b@@ c d@@"), "abc d");
  EXPECT_EQ(BytePairEncoding::Join("a @@ b @@@ c"), "a b @c");
  EXPECT_EQ(BytePairEncoding::Join(""), "");
}

TEST(BytePairEncodingTest, NamesAMalformedLine) {
  const auto error = [](std::string_view codes) {
    return BytePairEncoding::Parse(codes, "dir/bpe.codes").status();
  };
  EXPECT_THAT(error("#version: 0.3\na b\n"), IsError(kInvalid, "dir/bpe.codes", "line 1", "0.2"));
  EXPECT_THAT(error("a b\nab\n"), IsError(kInvalid, "line 2", "\"ab\" is not two symbols"));
  EXPECT_THAT(error("a b\n\nb c\n"), IsError(kInvalid, "line 2", "\"\""));
  EXPECT_THAT(error("a b c\n"), IsError(kInvalid, "line 1", "\"a b c\""));
  EXPECT_TRUE(error("a b\r\nb c\r\n\n").ok());
}

TEST(BytePairEncodingTest, ReadsAFile) {
  const TempDir dir;
  WriteFile(dir.path() / "bpe.codes", "#version: 0.2\na b\n");
  const auto bpe = BytePairEncoding::Read(dir.path() / "bpe.codes");
  ASSERT_TRUE(bpe.ok()) << bpe.status();
  EXPECT_THAT(bpe->Split("abc"), ElementsAre("ab@@", "c"));
  EXPECT_THAT(BytePairEncoding::Read(dir.path() / "none").status(),
              IsError(absl::StatusCode::kNotFound, "none"));
}

TEST(Utf8Test, IsWhatTheStandardAllows) {
  for (const char* text : {"", "a", "ü", "\u20ac", "\U0001f600", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(IsUtf8(text)) << text;
  }
  for (const char* text : {"\x80", "\xc3", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "a\xff",
                           "\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xe2\x82"}) {
    EXPECT_FALSE(IsUtf8(text)) << text;
  }
}

}  // namespace
}  // namespace evaserve
