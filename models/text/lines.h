#pragma once

#include <algorithm>
#include <string_view>

namespace evaserve {

// Takes the first line off `text`, and its end of line with it.
inline std::string_view NextLine(std::string_view& text) {
  const std::string_view line = text.substr(0, text.find('\n'));
  text.remove_prefix(std::min(line.size() + 1, text.size()));
  return line;
}

}  // namespace evaserve
