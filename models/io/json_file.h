#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace evaserve {

// The library copies, compares and prints by recursion: what is deeper could use up the stack.
inline constexpr int kMaxJsonDepth = 64;

// `text` as a JSON object in which no key comes twice at the top, and which is nested at most
// kMaxJsonDepth deep, itself included. InvalidArgument, naming `where`, for anything else.
//
// All JSON that comes from outside is read here.
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, std::string_view where);

// The same for a file; NotFound if there is none.
absl::StatusOr<nlohmann::json> ReadJsonObject(const std::filesystem::path& path);

// A value for an error message, which may be any value: printable ASCII, cut after 64 characters.
std::string JsonExcerpt(const nlohmann::json& value);

}  // namespace evaserve
