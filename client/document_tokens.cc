#include "client/document_tokens.h"

#include "absl/strings/ascii.h"

namespace evaserve {

DocumentTokens::DocumentTokens(std::string_view document, bool are_bytes)
    : document_(document), are_bytes_(are_bytes) {
  if (are_bytes) return;
  const auto is_space = [&](size_t i) { return absl::ascii_isspace(document[i]); };
  for (size_t i = 0; i < document.size(); ++i) {
    const bool ends_word = !is_space(i) && (i + 1 == document.size() || is_space(i + 1));
    if (ends_word || document[i] == '\n') ends_.push_back(i + 1);
  }
}

std::string_view DocumentTokens::Bytes(size_t begin, size_t end) const {
  if (are_bytes_) return document_.substr(begin, end - begin);
  const auto offset = [&](size_t token) { return token == 0 ? 0 : ends_[token - 1]; };
  return document_.substr(offset(begin), offset(end) - offset(begin));
}

}  // namespace evaserve
