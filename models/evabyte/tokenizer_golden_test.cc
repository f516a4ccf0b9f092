// The official tokenizer's answers.

#include <string>

#include "gtest/gtest.h"
#include "models/evabyte/tokenizer.h"
#include "models/testing/golden.h"

namespace evaserve {
namespace {

nlohmann::json Golden() { return GoldenJson(GoldenDir() / "evabyte_tokenizer.json"); }

std::vector<TokenId> Ids(const nlohmann::json& list) { return list.get<std::vector<TokenId>>(); }

// The official decoder drops bytes that are not UTF-8; ours passes every byte on.
std::string DropInvalid(const std::string& text) {
  const nlohmann::json json(text);
  const auto ignore = nlohmann::json::error_handler_t::ignore;
  return nlohmann::json::parse(json.dump(-1, ' ', false, ignore)).get<std::string>();
}

TEST(EvaByteTokenizerGoldenTest, Encodes) {
  const EvaByteTokenizer tokenizer(true);
  for (const nlohmann::json& golden : Golden().at("encode")) {
    const auto text = golden.at("text").get<std::string>();
    EXPECT_EQ(tokenizer.Encode(text, /*parse_special=*/true), Ids(golden.at("ids"))) << text;
  }
}

TEST(EvaByteTokenizerGoldenTest, Decodes) {
  const EvaByteTokenizer tokenizer(true);
  for (const nlohmann::json& golden : Golden().at("decode")) {
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
  for (const nlohmann::json& golden : Golden().at("chat")) {
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
  for (const auto& [token, name] : Golden().at("special_tokens").items()) {
    EXPECT_EQ(tokenizer.SpecialName(std::stoi(token)), name.get<std::string>());
  }
}

}  // namespace
}  // namespace evaserve
