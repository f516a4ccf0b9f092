#pragma once

#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace evaserve {

// The words of UTF-8 between white space, as Python's str.split() takes it.
std::vector<std::string> SplitAtSpace(std::string_view text);

enum class Language { kEnglish, kGerman };

// Splits text into tokens as the data of published translation models was: Moses's tokenizer.perl,
// with its escapes (' becomes &apos;). Immutable, thread-safe.
//
// Letters and digits are Unicode's categories L, Nl and Nd, so that marks of a script that has them
// inside of words (Hindi, Arabic, Hebrew) split it, where Moses keeps some.
//
// Source: the Python port sacremoses.
class MosesTokenizer {
 public:
  struct Options {
    Language language = Language::kEnglish;
    bool splits_hyphens = false;  // -a: "well-known" becomes "well @-@ known"
    // Words after which a full stop ends no sentence, and those of which that is true only before a
    // number.
    std::set<std::string, std::less<>> prefixes, numeric_prefixes;
  };

  explicit MosesTokenizer(Options options) : options_(std::move(options)) {}

  // `text` is UTF-8.
  std::vector<std::string> Tokenize(std::string_view text) const;

 private:
  std::string SplitFullStops(std::string_view text) const;
  bool EndsWithPrefix(std::string_view word, std::string_view next) const;

  const Options options_;
};

// Adds the words of one of Moses's files nonbreaking_prefix.*: a line each, those before numbers
// followed by #NUMERIC_ONLY#. NotFound if there is no such file.
absl::Status ReadNonbreakingPrefixes(const std::filesystem::path& file,
                                     MosesTokenizer::Options& options);

// The text of tokens: Moses's detokenizer.perl. `tokens` are UTF-8.
//
// Source: sacremoses, without its rules for Chinese, Japanese and Korean.
std::string MosesDetokenize(std::span<const std::string> tokens, Language language);

}  // namespace evaserve
