#include "client/document_tokens.h"

#include "re2/re2.h"

namespace evaserve {

DocumentTokens::DocumentTokens(std::string_view document, bool are_bytes)
    : document_(document), are_bytes_(are_bytes) {
  if (are_bytes) return;
  static const RE2 space(R"(([\t-\r\x1c-\x1f\x{85}\pZ]))");  // str.isspace() of Python
  re2::StringPiece rest(document.data(), document.size()), found;
  size_t word_begin = 0;
  const auto end_word = [&](size_t end) {
    if (end > word_begin) ends_.push_back(end);
  };
  while (RE2::FindAndConsume(&rest, space, &found)) {
    const auto begin = static_cast<size_t>(found.data() - document.data());
    end_word(begin);
    word_begin = begin + found.size();
    if (found == "\n") ends_.push_back(word_begin);
  }
  end_word(document.size());
}

std::string_view DocumentTokens::Bytes(size_t begin, size_t end) const {
  if (are_bytes_) return document_.substr(begin, end - begin);
  const auto offset = [&](size_t token) { return token == 0 ? 0 : ends_[token - 1]; };
  return document_.substr(offset(begin), offset(end) - offset(begin));
}

}  // namespace evaserve
