#include "models/io/json_file.h"

#include <algorithm>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "models/io/mapped_file.h"

namespace evaserve {
namespace {

// Of the byte with this number, from 1 to beyond the end of the text.
std::string PlaceOf(size_t byte, std::string_view text) {
  const std::string_view before = text.substr(0, byte == 0 ? 0 : byte - 1);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  return absl::StrCat("line ", line, ", column ", before.size() - (before.rfind('\n') + 1) + 1);
}

}  // namespace

absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, std::string_view where) {
  using Event = nlohmann::json::parse_event_t;
  std::set<std::string> keys;
  std::string duplicate;
  bool is_too_deep = false;
  // What it refuses is read on but not kept.
  const auto watch = [&](int depth, Event event, nlohmann::json& parsed) {
    if (depth >= kMaxJsonDepth && (event == Event::object_start || event == Event::array_start)) {
      is_too_deep = true;
      return false;
    }
    if (event != Event::key || depth != 1) return true;
    const std::string key = parsed.get<std::string>();
    if (!keys.insert(key).second) duplicate = key;
    return true;
  };
  nlohmann::json value;
  try {
    value = nlohmann::json::parse(text, watch);
  } catch (const nlohmann::json::parse_error& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(where), ": not valid JSON at ", PlaceOf(error.byte, text)));
  } catch (const nlohmann::json::out_of_range&) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(where), ": a number is out of range"));
  }
  if (!value.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(std::string(where), ": not a JSON object"));
  }
  if (is_too_deep) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(where), ": nested deeper than ", kMaxJsonDepth));
  }
  if (!duplicate.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(where), ": ", JsonExcerpt(duplicate), " comes twice"));
  }
  return value;
}

absl::StatusOr<nlohmann::json> ReadJsonObject(const std::filesystem::path& path) {
  absl::StatusOr<MappedFile> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  const auto bytes = file->bytes();
  return ParseJsonObject({reinterpret_cast<const char*>(bytes.data()), bytes.size()},
                         path.string());
}

std::string JsonExcerpt(const nlohmann::json& value) {
  constexpr size_t kMaxSize = 64;
  std::string text =
      value.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
  if (text.size() > kMaxSize) text.replace(kMaxSize, std::string::npos, "...");
  return text;
}

}  // namespace evaserve
