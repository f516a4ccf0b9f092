// The official tokenizer's answers.

#include <string>

#include "gtest/gtest.h"
#include "models/evabyte/tokenizer.h"
#include "models/testing/golden.h"

namespace evaserve {
namespace {

// One of the lists of the data.
nlohmann::json Golden(const char* list) {
  return GoldenJson(GoldenDir() / "evabyte_tokenizer.json").at(list);
}

std::vector<TokenId> Ids(const nlohmann::json& list) { return list.get<std::vector<TokenId>>(); }

// The official decoder drops bytes that are not UTF-8; ours passes every byte on.
std::string DropInvalid(const std::string& text) {
  const nlohmann::json json(text);
  const auto ignore = nlohmann::json::error_handler_t::ignore;
  return nlohmann::json::parse(json.dump(-1, ' ', false, ignore)).get<std::string>();
}

TEST(EvaByteTokenizerGoldenTest, Encodes) {
  const EvaByteTokenizer tokenizer(true);
  const nlohmann::json cases = Golden("encode");
  ASSERT_FALSE(cases.empty());
  for (const nlohmann::json& golden : cases) {
    const auto text = golden.at("text").get<std::string>();
    EXPECT_EQ(tokenizer.Encode(text, /*parse_special=*/true), Ids(golden.at("ids"))) << text;
  }
}

TEST(EvaByteTokenizerGoldenTest, Decodes) {
  const EvaByteTokenizer tokenizer(true);
  const nlohmann::json cases = Golden("decode");
  ASSERT_FALSE(cases.empty());
  for (const nlohmann::json& golden : cases) {
    std::string text, without_special;
    for (TokenId token : Ids(golden.at("ids"))) {
      text += tokenizer.SpecialName(token);
      text += tokenizer.Decode(token);
      without_special += tokenizer.Decode(token);
    }
    EXPECT_EQ(DropInvalid(text), golden.at("text").get<std::string>());
    EXPECT_EQ(DropInvalid(without_special), golden.at("text_skip_special").get<std::string>());
  }
}

TEST(EvaByteTokenizerGoldenTest, EncodesChats) {
  const EvaByteTokenizer tokenizer(true);
  const nlohmann::json cases = Golden("chat");
  ASSERT_FALSE(cases.empty());
  for (const nlohmann::json& golden : cases) {
    std::vector<ChatMessage> messages;
    for (const nlohmann::json& message : golden.at("messages")) {
      messages.push_back({message.at("role"), message.at("content")});
    }
    const auto tokens = tokenizer.EncodeChat(messages);
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    EXPECT_EQ(*tokens, Ids(golden.at("ids")));
  }
}

TEST(EvaByteTokenizerGoldenTest, NamesSpecialTokens) {
  const EvaByteTokenizer tokenizer(true);
  const nlohmann::json names = Golden("special_tokens");
  ASSERT_FALSE(names.empty());
  for (const auto& [token, name] : names.items()) {
    EXPECT_EQ(tokenizer.SpecialName(std::stoi(token)), name.get<std::string>());
  }
}

}  // namespace
}  // namespace evaserve
