#pragma once

#include <algorithm>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"

namespace evaserve {

inline constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

// What IsError() makes. Not of GoogleMock's own matchers, which every test would instantiate anew
// and take seconds more to compile.
class ErrorMatcher {
 public:
  using is_gtest_matcher = void;

  ErrorMatcher(absl::StatusCode code, std::vector<std::string> parts)
      : code_(code), parts_(std::move(parts)) {}

  bool MatchAndExplain(const absl::Status& status, std::ostream* explanation) const {
    const std::string message(status.message());
    const auto missing = std::ranges::find_if(
        parts_, [&](const std::string& part) { return message.find(part) == message.npos; });
    if (missing != parts_.end() && explanation != nullptr) {
      *explanation << "which does not say \"" << *missing << '"';
    }
    return status.code() == code_ && missing == parts_.end();
  }

  void DescribeTo(std::ostream* out) const { Describe(out, "is "); }
  void DescribeNegationTo(std::ostream* out) const { Describe(out, "is not "); }

 private:
  void Describe(std::ostream* out, const char* is) const {
    *out << is << absl::StatusCodeToString(code_) << " with a message that says";
    for (const std::string& part : parts_) *out << " \"" << part << '"';
  }

  absl::StatusCode code_;
  std::vector<std::string> parts_;
};

// A status of this code whose message contains every one of `parts`.
template <typename... Parts>
ErrorMatcher IsError(absl::StatusCode code, const Parts&... parts) {
  return {code, {std::string(parts)...}};
}

}  // namespace evaserve
