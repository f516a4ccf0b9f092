#pragma once

#include <filesystem>
#include <string>

#include "absl/status/statusor.h"

namespace evaserve {

// The bytes of a file of settings. InvalidArgument, "PATH: why", if it cannot be read, is no
// regular file or is larger than a mebibyte, which no such file is.
absl::StatusOr<std::string> ReadSmallFile(const std::filesystem::path& path);

}  // namespace evaserve
