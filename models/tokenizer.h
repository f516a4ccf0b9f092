#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace evaserve {

using TokenId = int32_t;

struct ChatMessage {
  std::string role;     // "system" (first message only), "user" or "assistant"
  std::string content;  // plain bytes: names of special tokens in it stay text
};

// Turns bytes into tokens and back. Immutable, thread-safe.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // The tokens of `text`, after the beginning-of-sequence token. With `parse_special` the names of
  // special tokens in the text become those tokens; leave it off for text from strangers, who could
  // otherwise inject control tokens.
  virtual std::vector<TokenId> Encode(std::string_view text, bool parse_special) const = 0;

  // The model's chat template, up to where the assistant's answer begins. InvalidArgument for an
  // unknown role, a system message that is not the first, no messages, or a model without a chat
  // template.
  virtual absl::StatusOr<std::vector<TokenId>> EncodeChat(
      std::span<const ChatMessage> messages) const = 0;

  // The bytes of a token, valid as long as the tokenizer; empty for a special token.
  virtual std::string_view Decode(TokenId token) const = 0;

  // The name of a special token, or empty.
  virtual std::string_view SpecialName(TokenId token) const = 0;

  // The token of one byte, where every byte of a text is a token of its own; none where tokens are
  // longer.
  virtual std::optional<TokenId> ByteToken(uint8_t byte) const = 0;
};

}  // namespace evaserve
