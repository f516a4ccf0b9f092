#pragma once

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace evaserve {

// InvalidArgument with a message of `parts`: the field, what came, what is allowed.
template <typename... Parts>
absl::Status Refuse(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

}  // namespace evaserve
