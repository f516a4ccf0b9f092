#include "models/text/dictionary.h"

#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "models/testing/status_matchers.h"
#include "models/testing/temp_dir.h"

namespace evaserve {
namespace {

absl::Status ParseError(std::string_view text, int vocab_size = 8) {
  return Dictionary::Parse(text, "dir/dict.txt", vocab_size).status();
}

TEST(DictionaryTest, GivesWordsTheirIdsAfterTheSpecialTokens) {
  const auto dictionary = Dictionary::Parse("the 12\n, 9\n@-@ 3\n", "dict.txt", 7);
  ASSERT_TRUE(dictionary.ok()) << dictionary.status();
  EXPECT_EQ(dictionary->size(), 7);
  EXPECT_EQ(dictionary->Find("the"), 4);
  EXPECT_EQ(dictionary->Find("@-@"), 6);
  EXPECT_EQ(dictionary->Word(5), ",");
  EXPECT_EQ(Dictionary::SpecialName(Dictionary::kEos), "</s>");
}

TEST(DictionaryTest, UnknownWordsAndSpecialNamesAreUnknown) {
  const auto dictionary = Dictionary::Parse("the 12\n", "dict.txt", 5);
  ASSERT_TRUE(dictionary.ok()) << dictionary.status();
  for (const char* word : {"a", "", "<s>", "<pad>", "</s>", "<unk>"}) {
    EXPECT_EQ(dictionary->Find(word), Dictionary::kUnknown) << word;
  }
}

TEST(DictionaryTest, OnlyLinesAreWords) {
  const auto dictionary = Dictionary::Parse("the 12\n", "dict.txt", 8);
  ASSERT_TRUE(dictionary.ok()) << dictionary.status();
  EXPECT_EQ(dictionary->Word(4), "the");
  for (TokenId token : {-1, 0, 3, 5, 7, 8}) EXPECT_EQ(dictionary->Word(token), "") << token;
  for (TokenId token : {-1, 4, 8}) EXPECT_EQ(Dictionary::SpecialName(token), "") << token;
}

TEST(DictionaryTest, KeepsWordsWhenMoved) {
  absl::StatusOr<Dictionary> parsed = Dictionary::Parse("a 1\nb 1\n", "dict.txt", 6);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const Dictionary dictionary = *std::exchange(parsed, absl::UnknownError("gone"));
  EXPECT_EQ(dictionary.Find("b"), 5);
  EXPECT_EQ(dictionary.Word(5), "b");
}

TEST(DictionaryTest, ReadsLinesAsPythonDoes) {
  // The end of the last line may be missing, and ends may be those of another system.
  const auto dictionary = Dictionary::Parse("two words 4\r\nb 1 \n\xff 1", "dict.txt", 7);
  ASSERT_TRUE(dictionary.ok()) << dictionary.status();
  EXPECT_EQ(dictionary->Find("two words"), 4);
  EXPECT_EQ(dictionary->Find("b"), 5);
  EXPECT_EQ(dictionary->Find("\xff"), 6);
}

TEST(DictionaryTest, AnOverwrittenWordHasTheLaterId) {
  const auto dictionary =
      Dictionary::Parse("a 3\n<unk> 2 #fairseq:overwrite\na 1 #fairseq:overwrite\n", "dict.txt", 7);
  ASSERT_TRUE(dictionary.ok()) << dictionary.status();
  EXPECT_EQ(dictionary->Find("<unk>"), 5);
  EXPECT_EQ(dictionary->Find("a"), 6);
  EXPECT_EQ(dictionary->Word(4), "a");
}

TEST(DictionaryTest, NamesAMalformedLine) {
  EXPECT_THAT(ParseError("a 1\n\nb 1\n"), IsError(kInvalid, "dir/dict.txt", "line 2", "\"\""));
  EXPECT_THAT(ParseError("a\n"), IsError(kInvalid, "line 1", "\"a\"", "a word and its count"));
  EXPECT_THAT(ParseError(" 3\n"), IsError(kInvalid, "line 1", "\" 3\""));
  EXPECT_THAT(ParseError("a b\n"), IsError(kInvalid, "line 1", "\"a b\""));
}

TEST(DictionaryTest, RefusesAWordThatComesTwice) {
  EXPECT_THAT(ParseError("a 1\na 1\n"), IsError(kInvalid, "line 2", "\"a\" comes twice"));
  EXPECT_THAT(ParseError("</s> 1\n"), IsError(kInvalid, "line 1", "\"</s>\" comes twice"));
}

TEST(DictionaryTest, RefusesASizeThatIsNotTheModels) {
  EXPECT_THAT(ParseError("a 1\n", 13),
              IsError(kInvalid, "dir/dict.txt", "5 words", "13 embeddings allow 6 to 13"));
  EXPECT_THAT(ParseError("a 1\nb 1\n", 5), IsError(kInvalid, "6 words", "allow 1 to 5"));
  EXPECT_TRUE(ParseError("a 1\n", 12).ok());
}

TEST(DictionaryTest, ReadsAFile) {
  const TempDir dir;
  WriteFile(dir.path() / "dict.txt", "a 1\n");
  const auto dictionary = Dictionary::Read(dir.path() / "dict.txt", 8);
  ASSERT_TRUE(dictionary.ok()) << dictionary.status();
  EXPECT_EQ(dictionary->Find("a"), 4);
  EXPECT_THAT(Dictionary::Read(dir.path() / "none.txt", 8).status(),
              IsError(absl::StatusCode::kNotFound, "none.txt"));
}

}  // namespace
}  // namespace evaserve
