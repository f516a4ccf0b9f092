#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "models/eva_translation/config.h"
#include "models/text/bpe.h"
#include "models/text/dictionary.h"
#include "models/text/moses.h"

namespace evaserve {

// Text of one language to tokens, and tokens of another one to text: words, by Moses's rules or
// white space; byte pairs; numbers of a dictionary. Immutable, thread-safe.
class TranslationText {
 public:
  // Reads from the model's directory
  //   dict.<source_lang>.txt and dict.<target_lang>.txt, or for either dict.txt,
  //   bpe.codes, if the config says so, and
  //   nonbreaking_prefix.<source_lang>, if it is there: Moses's file.
  // Errors name the file.
  static absl::StatusOr<TranslationText> Load(const std::filesystem::path& directory,
                                              const EvaTranslationConfig& config);

  // `text` is UTF-8. With </s> at the end, which is all if there are no words.
  std::vector<TokenId> Encode(std::string_view text) const;

  // Without <s> and </s>, as of fairseq's Dictionary.string(). An unknown word is "<unk>".
  std::string Decode(std::span<const TokenId> tokens) const;

 private:
  TranslationText(TranslationTextConfig config, MosesTokenizer tokenizer, Dictionary source,
                  Dictionary target, std::optional<BytePairEncoding> bpe)
      : config_(std::move(config)),
        tokenizer_(std::move(tokenizer)),
        source_(std::move(source)),
        target_(std::move(target)),
        bpe_(std::move(bpe)) {}

  TranslationTextConfig config_;
  MosesTokenizer tokenizer_;
  Dictionary source_, target_;
  std::optional<BytePairEncoding> bpe_;
};

}  // namespace evaserve
