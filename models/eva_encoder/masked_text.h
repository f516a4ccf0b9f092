#pragma once

#include <filesystem>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "models/eva_encoder/config.h"
#include "models/text/bpe.h"
#include "models/text/dictionary.h"

namespace evaserve {

// Text with masks to the tokens of a masked language model, and its tokens to words, as fairseq's
// masked_lm task has them: <s>, words between white space or their byte pairs, </s>. Immutable,
// thread-safe.
class MaskedText {
 public:
  static constexpr std::string_view kMask = "<mask>";

  // Reads dict.txt from the model's directory, and bpe.codes if the config says so. Errors name the
  // file.
  static absl::StatusOr<MaskedText> Load(const std::filesystem::path& directory,
                                         const EvaEncoderConfig& config);

  // The config's token; or the dictionary's for the word <mask>; or, as fairseq numbers it, the one
  // after its words.
  TokenId mask_token() const { return mask_token_; }

  // Each <mask> in `text` is one, also where it touches a word.
  std::vector<TokenId> Encode(std::string_view text) const;

  // As in the dictionary: a byte pair that does not end its word ends with "@@". Empty for a token
  // without a word.
  std::string_view Word(TokenId token) const;

  // Of the longest word.
  size_t max_word_bytes() const { return max_word_bytes_; }

 private:
  MaskedText(Dictionary dictionary, TokenId mask_token, std::optional<BytePairEncoding> bpe);

  void AppendWords(std::string_view text, std::vector<TokenId>& tokens) const;

  Dictionary dictionary_;
  TokenId mask_token_ = 0;
  std::optional<BytePairEncoding> bpe_;
  size_t max_word_bytes_ = 0;
};

}  // namespace evaserve
