#pragma once

#include <string_view>
#include <vector>

namespace evaserve {

// The words of a line of UTF-8 as fairseq splits it: at what Python takes for white space, which is
// more than ASCII's. Bytes that are not UTF-8 belong to words.
std::vector<std::string_view> SplitWords(std::string_view line);

}  // namespace evaserve
