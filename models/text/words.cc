#include "models/text/words.h"

#include <algorithm>
#include <cstddef>

namespace evaserve {
namespace {

// Those beyond ASCII for which Python's str.isspace() is true.
constexpr std::string_view kWideSpaces[] = {"\u0085", "\u00a0", "\u1680", "\u2000", "\u2001",
                                            "\u2002", "\u2003", "\u2004", "\u2005", "\u2006",
                                            "\u2007", "\u2008", "\u2009", "\u200a", "\u2028",
                                            "\u2029", "\u202f", "\u205f", "\u3000"};

// How many bytes of white space `text`, which is not empty, begins with: those of one character, or
// none.
size_t SpaceBytes(std::string_view text) {
  const auto first = static_cast<unsigned char>(text.front());
  if (first < 0x80) {
    const bool is_space =
        first == ' ' || (first >= '\t' && first <= '\r') || (first >= 0x1c && first <= 0x1f);
    return is_space ? 1 : 0;
  }
  const auto found = std::ranges::find_if(
      kWideSpaces, [text](std::string_view space) { return text.starts_with(space); });
  return found == std::end(kWideSpaces) ? 0 : found->size();
}

}  // namespace

std::vector<std::string_view> SplitWords(std::string_view line) {
  std::vector<std::string_view> words;
  size_t begin = 0;  // of the word
  for (size_t i = 0; i < line.size();) {
    const size_t space = SpaceBytes(line.substr(i));
    if (space > 0 && i > begin) words.push_back(line.substr(begin, i - begin));
    if (space > 0) begin = i + space;
    i += std::max<size_t>(space, 1);
  }
  if (begin < line.size()) words.push_back(line.substr(begin));
  return words;
}

}  // namespace evaserve
