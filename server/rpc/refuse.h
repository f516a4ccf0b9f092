#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/rpc/quoted.h"

namespace evaserve {

// InvalidArgument with a message of `parts`: the field, what came, what is allowed.
template <typename... Parts>
absl::Status Refuse(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

inline bool IsOfSharedMemory(std::string_view parameter) {
  return parameter.starts_with("shared_memory_");
}

// For a parameter that `tensor` does not take: Unimplemented if it is about shared memory, else
// InvalidArgument with what is `allowed`.
inline absl::Status RefuseParameter(const std::string& tensor, std::string_view parameter,
                                    const char* allowed) {
  if (!IsOfSharedMemory(parameter)) {
    return Refuse(tensor, ": got parameter '", Quoted(parameter), "', allowed is ", allowed);
  }
  return absl::UnimplementedError(
      absl::StrCat(tensor, ": got parameter '", Quoted(parameter),
                   "', but tensors come in messages here, not in shared memory"));
}

}  // namespace evaserve
