#include "server/rpc/request_identity.h"

#include "absl/strings/ascii.h"
#include "absl/strings/string_view.h"

namespace evaserve {
namespace {

// Where the fields of "00-<trace id>-<span id>-01" are.
constexpr size_t kTraceBegin = 3, kTraceSize = 32;
constexpr size_t kSpanBegin = 36, kSpanSize = 16;
constexpr size_t kFlagsBegin = 53;
constexpr size_t kSize = 55;

bool IsHex(std::string_view text) {
  return text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

bool IsZero(std::string_view text) { return text.find_first_not_of('0') == std::string_view::npos; }

// Whether `text`, of at least kSize characters, has the four fields at its beginning.
bool HasFields(std::string_view text) {
  for (const size_t dash : {kTraceBegin - 1, kSpanBegin - 1, kFlagsBegin - 1}) {
    if (text[dash] != '-') return false;
  }
  return IsHex(text.substr(0, kTraceBegin - 1)) && IsHex(text.substr(kTraceBegin, kTraceSize)) &&
         IsHex(text.substr(kSpanBegin, kSpanSize)) && IsHex(text.substr(kFlagsBegin, 2));
}

// Whether fields may follow the first four, and if there are some, they are set apart.
bool EndsWell(std::string_view text) {
  if (text.size() == kSize) return true;
  return text.substr(0, 2) != "00" && text[kSize] == '-';
}

}  // namespace

TraceContext ParseTraceparent(std::string_view text) {
  const absl::string_view stripped = absl::StripAsciiWhitespace({text.data(), text.size()});
  text = {stripped.data(), stripped.size()};
  if (text.size() < kSize || !HasFields(text) || !EndsWell(text)) return {};
  const std::string_view trace = text.substr(kTraceBegin, kTraceSize);
  const std::string_view span = text.substr(kSpanBegin, kSpanSize);
  if (text.substr(0, 2) == "ff" || IsZero(trace) || IsZero(span)) return {};
  return {.trace_id = std::string(trace), .span_id = std::string(span)};
}

}  // namespace evaserve
