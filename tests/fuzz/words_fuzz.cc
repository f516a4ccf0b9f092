// A dictionary from anywhere, then after a zero byte a text: what is read as words and written
// again is read as the same words.

#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>

#include "models/text/word_tokenizer.h"
#include "tests/fuzz/fuzz_target.h"

namespace evaserve {
namespace {

void Read(std::string_view input) {
  const std::string_view lines = input.substr(0, input.find('\0'));
  const std::string_view text = input.substr(std::min(lines.size() + 1, input.size()));
  const auto num_lines = static_cast<int>(std::ranges::count(lines, '\n'));
  absl::StatusOr<Dictionary> dictionary =
      Dictionary::Parse(lines, "file", Dictionary::kNumSpecial + num_lines + 1);
  if (!dictionary.ok()) return;
  // Then <unk> is also a word.
  const bool is_ambiguous = dictionary->Find("<unk>") != Dictionary::kUnknown;
  const int size = dictionary->size();
  const WordTokenizer tokenizer(*std::move(dictionary), Dictionary::kEos);
  const std::vector<TokenId> tokens = tokenizer.Encode(text, /*parse_special=*/false);
  std::string written;
  for (size_t i = 1; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= size) std::abort();
    written += tokenizer.Decode(tokens[i]);
  }
  if (!is_ambiguous && tokenizer.Encode(written, false) != tokens) std::abort();
}

}  // namespace
}  // namespace evaserve

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  evaserve::Read({reinterpret_cast<const char*>(data), size});
  return 0;
}
