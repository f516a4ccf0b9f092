#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"

namespace evaserve {

// Byte pair encoding of words as fairseq's published data has it: a file of merges,
//
//   #version: 0.2
//   t h
//   th e</w>
//
// the earlier the sooner, with </w> for the end of a word (with the first version, which has no
// first line like this, it is a symbol of its own). All parts of a word but the last end with "@@".
// Immutable, thread-safe.
//
// Source: subword-nmt's apply_bpe.py, without vocabulary, glossaries and dropout.
class BytePairEncoding {
 public:
  // InvalidArgument, naming `where` and the line, for a line that is not two symbols or an unknown
  // version.
  static absl::StatusOr<BytePairEncoding> Parse(std::string_view text, std::string_view where);

  // The same for a file; NotFound if there is none.
  static absl::StatusOr<BytePairEncoding> Read(const std::filesystem::path& file);

  // The parts of a word of UTF-8; bytes that are not UTF-8 are characters of their own. Takes time
  // like n log(n).
  std::vector<std::string> Split(std::string_view word) const;

  // `text`, parts between single spaces, with the words whole again.
  static std::string Join(std::string_view text);

 private:
  BytePairEncoding() = default;

  // Of the merge of two symbols, or -1.
  int RankOf(std::string_view left, std::string_view right) const;

  bool has_end_symbol_ = false;
  std::unordered_map<std::string, int> ranks_;  // of "left right"
};

}  // namespace evaserve
