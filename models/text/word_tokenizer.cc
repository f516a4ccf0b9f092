#include "models/text/word_tokenizer.h"

#include <algorithm>
#include <utility>

#include "models/text/words.h"

namespace evaserve {

WordTokenizer::WordTokenizer(Dictionary dictionary, TokenId bos)
    : dictionary_(std::move(dictionary)), bos_(bos) {
  ends_.reserve(dictionary_.size());
  for (TokenId token = 0; token < dictionary_.size(); ++token) {
    std::string_view word = dictionary_.Word(token);
    if (token == Dictionary::kUnknown) word = Dictionary::SpecialName(token);
    if (token == Dictionary::kEos) bytes_ += '\n';
    if (!word.empty()) bytes_.append(" ").append(word);
    ends_.push_back(bytes_.size());
  }
}

std::vector<TokenId> WordTokenizer::Encode(std::string_view text, bool parse_special) const {
  std::vector<TokenId> tokens = {bos_};
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    for (std::string_view word : SplitWords(text.substr(0, end))) {
      tokens.push_back(Find(word, parse_special));
    }
    if (end == text.size()) break;
    tokens.push_back(Dictionary::kEos);
    text.remove_prefix(end + 1);
  }
  return tokens;
}

TokenId WordTokenizer::Find(std::string_view word, bool parse_special) const {
  for (TokenId token = 0; parse_special && token < Dictionary::kNumSpecial; ++token) {
    if (word == Dictionary::SpecialName(token)) return token;
  }
  return dictionary_.Find(word);
}

absl::StatusOr<std::vector<TokenId>> WordTokenizer::EncodeChat(
    std::span<const ChatMessage> messages) const {
  return absl::InvalidArgumentError("messages: this model has no chat template");
}

std::string_view WordTokenizer::Decode(TokenId token) const {
  if (token < 0 || token >= dictionary_.size()) return {};
  const size_t begin = token == 0 ? 0 : ends_[token - 1];
  return std::string_view(bytes_).substr(begin, ends_[token] - begin);
}

std::string_view WordTokenizer::SpecialName(TokenId token) const {
  const bool is_special = token == Dictionary::kBos || token == Dictionary::kPad;
  return is_special ? Dictionary::SpecialName(token) : std::string_view();
}

}  // namespace evaserve
