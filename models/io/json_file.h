#pragma once

#include <filesystem>
#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace evaserve {

// `text` as a JSON object in which no key comes twice at the top. InvalidArgument, naming `where`,
// for anything else.
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, std::string_view where);

// The same for a file; NotFound if there is none.
absl::StatusOr<nlohmann::json> ReadJsonObject(const std::filesystem::path& path);

}  // namespace evaserve
