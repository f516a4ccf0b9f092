#pragma once

#include <deque>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>

#include "absl/status/statusor.h"
#include "models/tokenizer.h"

namespace evaserve {

// The vocabulary of a fairseq model: dict.txt, a line for each word with its count,
//
//   the 16042
//   , 12011
//
// most frequent first. Ids are those of the special tokens below, then of the lines in their order.
// A word that is there already, also as the name of a special token, must be followed by its count
// and "#fairseq:overwrite", and gets a new id. Immutable, thread-safe; words are bytes.
//
// Source: fairseq's data/dictionary.py.
class Dictionary {
 public:
  static constexpr TokenId kBos = 0;      // <s>
  static constexpr TokenId kPad = 1;      // <pad>
  static constexpr TokenId kEos = 2;      // </s>
  static constexpr TokenId kUnknown = 3;  // <unk>
  static constexpr TokenId kNumSpecial = 4;

  // fairseq fills vocabularies up to a multiple of this with words that no text has.
  static constexpr int kPadding = 8;

  Dictionary(Dictionary&&) = default;
  Dictionary& operator=(Dictionary&&) = default;

  // The dictionary of a model with `vocab_size` embeddings: of so many ids, or of up to kPadding -
  // 1 fewer, and then without words for the last. InvalidArgument, naming `where` and the line, for
  // anything else.
  static absl::StatusOr<Dictionary> Parse(std::string_view text, std::string_view where,
                                          int vocab_size);

  // The same for a file; NotFound if there is none.
  static absl::StatusOr<Dictionary> Read(const std::filesystem::path& file, int vocab_size);

  int size() const { return static_cast<int>(words_.size()); }

  // kUnknown for a word that has no line; so names of special tokens never find them.
  TokenId Find(std::string_view word) const;

  // Valid as long as the dictionary. Empty for special tokens, ids without a word and those outside
  // [0, size()).
  std::string_view Word(TokenId token) const;

  // The name of a special token, or empty.
  static std::string_view SpecialName(TokenId token);

 private:
  Dictionary() : words_(kNumSpecial) {}

  absl::Status Add(std::string_view line);

  std::deque<std::string> words_;  // by id; they do not move when more come, as ids_ needs
  std::unordered_map<std::string_view, TokenId> ids_;
};

}  // namespace evaserve
