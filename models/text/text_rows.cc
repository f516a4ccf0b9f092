#include "models/text/text_rows.h"

#include <cstddef>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "models/text/utf8.h"

namespace evaserve {
namespace {

constexpr int64_t kMaxRows = 256;
constexpr size_t kMaxRequestBytes = 1 << 18;
constexpr size_t kMaxTextBytes = 1 << 15;  // more than any model takes

}  // namespace

absl::StatusOr<std::vector<std::string_view>> ReadTextRows(const InputTensor& text_input) {
  std::vector<std::string_view> texts = BytesElements(text_input.data);
  if (std::ssize(texts) > kMaxRows || text_input.data.size() > kMaxRequestBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("text_input: got ", texts.size(), " rows of ", text_input.data.size(),
                     " bytes, allowed are ", kMaxRows, " rows and ", kMaxRequestBytes, " bytes"));
  }
  for (size_t row = 0; row < texts.size(); ++row) {
    if (texts[row].size() > kMaxTextBytes) {
      return absl::InvalidArgumentError(absl::StrCat("text_input: row ", row, " has ",
                                                     texts[row].size(), " bytes, allowed are ",
                                                     kMaxTextBytes));
    }
    if (IsUtf8(texts[row])) continue;
    return absl::InvalidArgumentError(absl::StrCat("text_input: row ", row, " is not UTF-8"));
  }
  return texts;
}

}  // namespace evaserve
