#include "models/text/word_tokenizer.h"

#include <algorithm>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/testing/status_matchers.h"

namespace evaserve {
namespace {

using testing::ElementsAre;

constexpr TokenId kBos = Dictionary::kBos, kPad = Dictionary::kPad, kEos = Dictionary::kEos,
                  kUnknown = Dictionary::kUnknown;
constexpr TokenId kThe = 4, kCat = 5, kSat = 6;

WordTokenizer MakeTokenizer(TokenId bos = kEos) {
  auto dictionary = Dictionary::Parse("the 9\ncat 2\nsat 1\n", "dict.txt", 8);
  EXPECT_TRUE(dictionary.ok()) << dictionary.status();
  return WordTokenizer(*std::move(dictionary), bos);
}

TEST(WordTokenizerTest, EncodesWordsAfterTheBeginToken) {
  EXPECT_THAT(MakeTokenizer().Encode(" the cat  sat", false), ElementsAre(kEos, kThe, kCat, kSat));
  EXPECT_THAT(MakeTokenizer(kBos).Encode("cat", false), ElementsAre(kBos, kCat));
  EXPECT_THAT(MakeTokenizer().Encode(" ", false), ElementsAre(kEos));
}

TEST(WordTokenizerTest, AWordWithoutALineIsUnknown) {
  EXPECT_THAT(MakeTokenizer().Encode("the dog <unk>", false),
              ElementsAre(kEos, kThe, kUnknown, kUnknown));
}

TEST(WordTokenizerTest, EveryNewlineEndsALine) {
  EXPECT_THAT(MakeTokenizer().Encode("the cat \n\nsat\n", false),
              ElementsAre(kEos, kThe, kCat, kEos, kEos, kSat, kEos));
}

TEST(WordTokenizerTest, SpecialNamesStayTextUnlessAskedFor) {
  EXPECT_THAT(MakeTokenizer().Encode("the </s> <pad>", false),
              ElementsAre(kEos, kThe, kUnknown, kUnknown));
  EXPECT_THAT(MakeTokenizer().Encode("the </s> <pad>", true), ElementsAre(kEos, kThe, kEos, kPad));
}

TEST(WordTokenizerTest, DecodesToTextThatEncodesToTheSame) {
  const WordTokenizer tokenizer = MakeTokenizer();
  const std::vector<TokenId> tokens = {kThe, kUnknown, kEos, kEos, kCat, kSat};
  std::string text;
  for (TokenId token : tokens) text += tokenizer.Decode(token);
  EXPECT_EQ(text, " the <unk>\n\n cat sat");
  std::vector<TokenId> again = tokenizer.Encode(text, false);
  again.erase(again.begin());
  EXPECT_EQ(again, tokens);
}

TEST(WordTokenizerTest, SpecialTokensHaveNamesAndNoBytes) {
  const WordTokenizer tokenizer = MakeTokenizer();
  EXPECT_EQ(tokenizer.SpecialName(kBos), "<s>");
  EXPECT_EQ(tokenizer.SpecialName(kPad), "<pad>");
  for (TokenId token : {kBos, kPad, 7, -1, 8}) EXPECT_EQ(tokenizer.Decode(token), "") << token;
  for (TokenId token : {kEos, kUnknown, kThe, 7}) {
    EXPECT_EQ(tokenizer.SpecialName(token), "") << token;
  }
}

TEST(WordTokenizerTest, BytesAreNoTokens) {
  EXPECT_EQ(MakeTokenizer().ByteToken('a'), std::nullopt);
}

TEST(WordTokenizerTest, HasNoChatTemplate) {
  const ChatMessage message = {"user", "the cat"};
  EXPECT_THAT(MakeTokenizer().EncodeChat({&message, 1}).status(),
              IsError(absl::StatusCode::kInvalidArgument, "no chat template"));
}

}  // namespace
}  // namespace evaserve
