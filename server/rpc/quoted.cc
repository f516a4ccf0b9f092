#include "server/rpc/quoted.h"

#include <optional>

#include "models/text/utf8.h"

namespace evaserve {

std::string AsUtf8(std::string_view text, size_t max_bytes) {
  constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
  std::string result;
  while (!text.empty()) {
    const std::optional<size_t> bytes = CharacterBytes(text);
    const std::string_view character = bytes ? text.substr(0, *bytes) : kReplacement;
    if (character.size() > max_bytes - result.size()) break;
    result += character;
    text.remove_prefix(bytes.value_or(1));
  }
  return result;
}

}  // namespace evaserve
