#pragma once

#include <string>

#include "absl/status/status.h"
#include "gmock/gmock.h"

namespace evaserve {

// A status of this code whose message contains every one of `parts`.
template <typename... Parts>
auto IsError(absl::StatusCode code, const Parts&... parts) {
  using testing::AllOf;
  using testing::HasSubstr;
  using testing::Property;
  using testing::ResultOf;
  return AllOf(
      Property("code", &absl::Status::code, code),
      ResultOf(
          "message", [](const absl::Status& status) { return std::string(status.message()); },
          AllOf(HasSubstr(parts)...)));
}

}  // namespace evaserve
