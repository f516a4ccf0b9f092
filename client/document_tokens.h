#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace evaserve {

// Where the tokens of a document are that a model scores: bytes, or words and newlines. A word's
// bytes begin with the white space before it. Immutable, thread-safe.
class DocumentTokens {
 public:
  // `document` must outlive this. White space is Unicode's; bytes that are not UTF-8 belong to
  // words.
  DocumentTokens(std::string_view document, bool are_bytes);

  bool are_bytes() const { return are_bytes_; }
  size_t size() const { return are_bytes_ ? document_.size() : ends_.size(); }

  // The bytes of tokens [begin, end).
  std::string_view Bytes(size_t begin, size_t end) const;

 private:
  const std::string_view document_;
  const bool are_bytes_;
  std::vector<size_t> ends_;  // in the document, of each word and newline
};

}  // namespace evaserve
