#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "models/text/dictionary.h"
#include "models/tokenizer.h"

namespace evaserve {

// Words of a fairseq dictionary, as its language models see text: a word is what stands between
// white space, a line ends with </s>, and a word that the dictionary does not have is <unk>.
//
// A word's bytes are a space and the word, those of </s> a newline and those of <unk> a space and
// its name, so that what a model writes reads as what it was trained on. <s> and <pad> are special.
class WordTokenizer final : public Tokenizer {
 public:
  // `bos` begins every text: of a model that was trained without <s> it is </s>, the end of the
  // line before.
  WordTokenizer(Dictionary dictionary, TokenId bos);

  // White space at the begin and end of lines is lost, but for the newlines.
  std::vector<TokenId> Encode(std::string_view text, bool parse_special) const override;
  absl::StatusOr<std::vector<TokenId>> EncodeChat(
      std::span<const ChatMessage> messages) const override;
  std::string_view Decode(TokenId token) const override;
  std::string_view SpecialName(TokenId token) const override;
  std::optional<TokenId> ByteToken(uint8_t byte) const override { return std::nullopt; }

 private:
  TokenId Find(std::string_view word, bool parse_special) const;

  const Dictionary dictionary_;
  const TokenId bos_;
  // What Decode() gives, one after the other: of token i, [ends_[i - 1], ends_[i]).
  std::string bytes_;
  std::vector<size_t> ends_;
};

}  // namespace evaserve
