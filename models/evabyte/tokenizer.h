#pragma once

#include <array>
#include <string>

#include "models/tokenizer.h"

namespace evaserve {

// Bytes are tokens 64 .. 319; tokens below 64 are special.
class EvaByteTokenizer final : public Tokenizer {
 public:
  static constexpr TokenId kBos = 1;
  static constexpr TokenId kEndOfTurn = 11;  // <|eot_id|>
  static constexpr TokenId kNumSpecial = 64;

  // A chat model ends its turns with kEndOfTurn; others were never trained on the template.
  explicit EvaByteTokenizer(bool has_chat_template);

  std::vector<TokenId> Encode(std::string_view text, bool parse_special) const override;
  absl::StatusOr<std::vector<TokenId>> EncodeChat(
      std::span<const ChatMessage> messages) const override;
  std::string_view Decode(TokenId token) const override;
  std::string_view SpecialName(TokenId token) const override;
  std::optional<TokenId> ByteToken(uint8_t byte) const override { return kNumSpecial + byte; }

 private:
  void AppendBytes(std::string_view text, std::vector<TokenId>& tokens) const;
  void AppendMessage(std::string_view role, std::string_view content,
                     std::vector<TokenId>& tokens) const;

  const bool has_chat_template_;
  std::array<std::string, kNumSpecial> special_names_;
  std::array<char, 256> bytes_;
};

}  // namespace evaserve
