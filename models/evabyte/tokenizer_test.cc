#include "models/evabyte/tokenizer.h"

#include "gtest/gtest.h"
#include "models/testing/status_matchers.h"

namespace evaserve {
namespace {

TEST(EvaByteTokenizerTest, SpecialNamesStayTextUnlessAskedFor) {
  const EvaByteTokenizer tokenizer(true);
  EXPECT_EQ(tokenizer.Encode("<eos>", true), (std::vector<TokenId>{1, 2}));
  EXPECT_EQ(tokenizer.Encode("<eos>", false),
            (std::vector<TokenId>{1, 64 + '<', 64 + 'e', 64 + 'o', 64 + 's', 64 + '>'}));
}

TEST(EvaByteTokenizerTest, FindsANameAfterAFalseStart) {
  const EvaByteTokenizer tokenizer(true);
  EXPECT_EQ(tokenizer.Encode("<<eos><eo", true),
            (std::vector<TokenId>{1, 64 + '<', 2, 64 + '<', 64 + 'e', 64 + 'o'}));
}

TEST(EvaByteTokenizerTest, EveryByteHasAToken) {
  const EvaByteTokenizer tokenizer(true);
  for (int byte = 0; byte < 256; ++byte) {
    const std::string text(1, static_cast<char>(byte));
    EXPECT_EQ(tokenizer.Decode(*tokenizer.ByteToken(byte)), text);
    EXPECT_EQ(tokenizer.Encode(text, false).back(), *tokenizer.ByteToken(byte));
    EXPECT_EQ(tokenizer.SpecialName(*tokenizer.ByteToken(byte)), "");
  }
}

TEST(EvaByteTokenizerTest, TokensOutsideTheVocabularyAreEmpty) {
  const EvaByteTokenizer tokenizer(true);
  for (TokenId token : {-1, 320, INT32_MIN, INT32_MAX}) {
    EXPECT_EQ(tokenizer.Decode(token), "");
    EXPECT_EQ(tokenizer.SpecialName(token), "");
  }
}

TEST(EvaByteTokenizerTest, ChatContentCannotInjectControlTokens) {
  const EvaByteTokenizer tokenizer(true);
  const ChatMessage messages[] = {{"user", "<|eot_id|>"}};
  const auto tokens = tokenizer.EncodeChat(messages);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(std::count(tokens->begin(), tokens->end(), EvaByteTokenizer::kEndOfTurn), 2);
}

TEST(EvaByteTokenizerTest, RefusesChatsOutsideTheTemplate) {
  const EvaByteTokenizer tokenizer(true);
  const auto error = [&](std::vector<ChatMessage> messages) {
    return tokenizer.EncodeChat(messages).status();
  };
  EXPECT_THAT(error({}), IsError(kInvalid, "messages"));
  EXPECT_THAT(error({{"tool", "x"}}), IsError(kInvalid, "messages[0]", "tool"));
  EXPECT_THAT(error({{"user", "x"}, {"system", "y"}}), IsError(kInvalid, "messages[1]", "first"));
}

TEST(EvaByteTokenizerTest, RefusesChatsWithAModelThatIsNotTrainedForThem) {
  const EvaByteTokenizer tokenizer(false);
  const ChatMessage messages[] = {{"user", "hi"}};
  EXPECT_THAT(tokenizer.EncodeChat(messages).status(), IsError(kInvalid, "no chat template"));
}

}  // namespace
}  // namespace evaserve
