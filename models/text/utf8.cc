#include "models/text/utf8.h"

namespace evaserve {

std::optional<size_t> CharacterBytes(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  const size_t count = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < count) return std::nullopt;
  for (size_t i = 1; i < count; ++i) {
    if (byte(i) < 0x80 || byte(i) > 0xbf) return std::nullopt;
  }
  if ((first == 0xe0 && byte(1) < 0xa0) || (first == 0xed && byte(1) > 0x9f) ||
      (first == 0xf0 && byte(1) < 0x90) || (first == 0xf4 && byte(1) > 0x8f)) {
    return std::nullopt;
  }
  return count;
}

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    const std::optional<size_t> count = CharacterBytes(text);
    if (!count) return false;
    text.remove_prefix(*count);
  }
  return true;
}

}  // namespace evaserve
