#include "tests/fakes/fake_tokenizer.h"

#include "absl/strings/str_cat.h"

namespace evaserve {

FakeTokenizer::FakeTokenizer() {
  for (int byte = 0; byte < 256; ++byte) bytes_[byte] = static_cast<char>(byte);
}

std::vector<TokenId> FakeTokenizer::Encode(std::string_view text, bool parse_special) const {
  std::vector<TokenId> tokens = {kBos};
  while (!text.empty()) {
    if (parse_special && text.starts_with(SpecialName(kEos))) {
      tokens.push_back(kEos);
      text.remove_prefix(SpecialName(kEos).size());
    } else {
      tokens.push_back(kFirstByte + static_cast<uint8_t>(text.front()));
      text.remove_prefix(1);
    }
  }
  return tokens;
}

absl::StatusOr<std::vector<TokenId>> FakeTokenizer::EncodeChat(
    std::span<const ChatMessage> messages) const {
  if (messages.empty()) return absl::InvalidArgumentError("messages is empty");
  std::string text;
  for (const ChatMessage& message : messages) {
    if (message.role != "system" && message.role != "user" && message.role != "assistant") {
      return absl::InvalidArgumentError(absl::StrCat("role is \"", message.role, "\""));
    }
    absl::StrAppend(&text, message.role, ": ", message.content, "\n");
  }
  return Encode(text, /*parse_special=*/false);
}

std::string_view FakeTokenizer::Decode(TokenId token) const {
  if (token < kFirstByte || token >= kVocabSize) return {};
  return {&bytes_[token - kFirstByte], 1};
}

std::string_view FakeTokenizer::SpecialName(TokenId token) const {
  if (token == kBos) return "<bos>";
  if (token == kEos) return "<eos>";
  return {};
}

}  // namespace evaserve
