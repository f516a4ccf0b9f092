#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/tokenizer.h"

namespace evaserve {

// The byte tokenizer of FakeModel: token = byte + 64 as in EvaByte, with the special tokens kBos
// and kEos ("<bos>", "<eos>").
class FakeTokenizer final : public Tokenizer {
 public:
  static constexpr TokenId kBos = 1;
  static constexpr TokenId kEos = 2;
  static constexpr TokenId kFirstByte = 64;
  static constexpr int kVocabSize = 320;

  FakeTokenizer();

  std::vector<TokenId> Encode(std::string_view text, bool parse_special) const override;

  // "ROLE: CONTENT\n" of each message.
  absl::StatusOr<std::vector<TokenId>> EncodeChat(
      std::span<const ChatMessage> messages) const override;

  std::string_view Decode(TokenId token) const override;
  std::string_view SpecialName(TokenId token) const override;
  std::optional<TokenId> ByteToken(uint8_t byte) const override { return kFirstByte + byte; }

 private:
  std::array<char, 256> bytes_;
};

}  // namespace evaserve
