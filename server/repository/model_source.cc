#include "server/repository/model_source.h"

#include <algorithm>
#include <map>
#include <system_error>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "models/io/json_file.h"

namespace evaserve {
namespace {

namespace fs = std::filesystem;

// An empty object if there is no such file.
absl::StatusOr<nlohmann::json> ReadSettings(const fs::path& directory) {
  absl::StatusOr<nlohmann::json> json = ReadJsonObject(directory / "serving.json");
  if (absl::IsNotFound(json.status())) return nlohmann::json::object();
  return json;
}

bool IsModel(const fs::path& directory) {
  std::error_code error;
  return fs::is_regular_file(directory / "config.json", error);
}

// The version that a directory of this name holds, or 0.
int64_t VersionOf(const std::string& name) {
  int64_t version = 0;
  if (!absl::SimpleAtoi(name, &version) || version < 1) return 0;
  return std::to_string(version) == name ? version : 0;
}

// The paths of the directories in one, sorted.
std::vector<fs::path> DirectoriesIn(const fs::path& directory) {
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::directory_iterator i(directory, error), end; !error && i != end; i.increment(error)) {
    std::error_code gone;  // while we looked
    if (i->is_directory(gone)) found.push_back(i->path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

// By number, in descending order.
std::map<int64_t, fs::path, std::greater<>> NumberedDirectories(const fs::path& model) {
  std::map<int64_t, fs::path, std::greater<>> found;
  for (const fs::path& directory : DirectoriesIn(model)) {
    if (const int64_t version = VersionOf(directory.filename().string()); version > 0) {
      found[version] = directory;
    }
  }
  return found;
}

// The names of directories that would be versions if they were called so.
std::vector<std::string> MisnumberedDirectories(const fs::path& model) {
  std::vector<std::string> found;
  for (const fs::path& directory : DirectoriesIn(model)) {
    const std::string name = directory.filename().string();
    if (VersionOf(name) == 0 && IsModel(directory)) found.push_back(name);
  }
  return found;
}

// Others are nobody's business, as "lost+found" is.
bool LooksLikeAModel(const fs::path& directory) {
  std::error_code error;
  return IsModel(directory) || fs::is_regular_file(directory / "serving.json", error) ||
         !NumberedDirectories(directory).empty() || !MisnumberedDirectories(directory).empty();
}

uint64_t Mix(uint64_t stamp, uint64_t value) {
  return (stamp ^ value) * 0x9e3779b97f4a7c15u + (stamp >> 29);
}

uint64_t StampOf(const fs::path& directory) {
  std::map<std::string, uint64_t> files;  // in an order of their own
  std::error_code error;
  for (fs::directory_iterator i(directory, error), end; !error && i != end; i.increment(error)) {
    std::error_code gone;  // while we looked
    if (!i->is_regular_file(gone)) continue;
    const auto time = static_cast<uint64_t>(i->last_write_time(gone).time_since_epoch().count());
    files[i->path().filename().string()] = Mix(time, i->file_size(gone));
  }
  uint64_t stamp = 0;
  for (const auto& [name, value] : files) {
    stamp = Mix(Mix(stamp, std::hash<std::string>()(name)), value);
  }
  return stamp;
}

// Of what the serving.json of all versions says for each of them: a version that the policy goes on
// to choose has not changed.
uint64_t StampOf(nlohmann::json settings) {
  settings.erase("version_policy");
  return std::hash<std::string>()(settings.dump());
}

// `versions` as `policy` wants them.
absl::StatusOr<std::vector<int64_t>> Choose(
    const std::map<int64_t, fs::path, std::greater<>>& versions, const VersionPolicy& policy,
    const std::string& model) {
  for (const int64_t version : policy.specific) {
    if (versions.contains(version)) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        model, ": \"version_policy\" asks for version ", version,
        "; there are: ", absl::StrJoin(versions, ", ", [](std::string* out, const auto& entry) {
          absl::StrAppend(out, entry.first);
        })));
  }
  std::vector<int64_t> chosen = policy.specific;
  if (chosen.empty()) {
    for (const auto& [version, directory] : versions) {
      if (policy.num_latest > 0 && std::ssize(chosen) == policy.num_latest) break;
      chosen.push_back(version);
    }
  }
  std::sort(chosen.begin(), chosen.end());
  chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
  return chosen;
}

// `json` is what the model's serving.json files say together.
absl::StatusOr<ModelSource> MakeSource(const std::string& name, int64_t version,
                                       const fs::path& directory, const nlohmann::json& json,
                                       const ServingSettings& defaults) {
  absl::StatusOr<ServingSettings> settings =
      ParseServingSettings(json, (directory / "serving.json").string(), defaults);
  if (!settings.ok()) return settings.status();
  return ModelSource{name, version, directory, *std::move(settings), StampOf(directory)};
}

}  // namespace

absl::StatusOr<ModelSource> SourceOf(const std::string& name, const fs::path& directory,
                                     const ServingSettings& defaults,
                                     const nlohmann::json& changes) {
  absl::StatusOr<nlohmann::json> json = ReadSettings(directory);
  if (!json.ok()) return json.status();
  json->merge_patch(changes);
  return MakeSource(name, /*version=*/1, directory, *json, defaults);
}

absl::Status CheckModelName(std::string_view name) {
  constexpr size_t kMaxLength = 128;
  const bool is_good = !name.empty() && name.size() <= kMaxLength && name.front() != '.' &&
                       std::all_of(name.begin(), name.end(), [](unsigned char c) {
                         return c > ' ' && c < 0x7f && c != '/' && c != '\\' && c != '"';
                       });
  if (is_good) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("model_name: got '", std::string(name.substr(0, kMaxLength)),
                   "', allowed are 1 to 128 printable characters without blanks, slashes and "
                   "quotes that do not begin with a dot"));
}

absl::StatusOr<std::vector<std::string>> RepositoryDirectory::Names() const {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator i(path_, error), end; !error && i != end; i.increment(error)) {
    std::error_code gone;
    const std::string name = i->path().filename().string();
    if (name.front() == '.' || !i->is_directory(gone)) continue;
    if (LooksLikeAModel(i->path())) names.push_back(name);
  }
  if (error) {
    return absl::NotFoundError(
        absl::StrCat("model repository ", path_.string(), ": ", error.message()));
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool RepositoryDirectory::Has(const std::string& name) const {
  std::error_code error;
  const fs::file_type type = fs::status(path_ / name, error).type();
  return type == fs::file_type::directory || type == fs::file_type::none;  // none: an error
}

std::vector<std::string> RepositoryDirectory::Misnumbered(const std::string& name) const {
  if (!CheckModelName(name).ok() || IsModel(path_ / name)) return {};
  return MisnumberedDirectories(path_ / name);
}

absl::StatusOr<std::vector<ModelSource>> RepositoryDirectory::Versions(
    const std::string& name, const nlohmann::json& changes) const {
  if (absl::Status status = CheckModelName(name); !status.ok()) return status;
  const absl::StatusOr<std::vector<std::string>> names = Names();
  if (!names.ok()) return names.status();
  if (!Has(name)) {
    return absl::NotFoundError(
        absl::StrCat("model repository ", path_.string(), " has no \"", name, "\""));
  }
  const fs::path model = path_ / name;
  absl::StatusOr<nlohmann::json> json = ReadSettings(model);
  if (!json.ok()) return json.status();
  const uint64_t settings_stamp = StampOf(*json);
  json->merge_patch(changes);
  std::vector<ModelSource> sources;
  const auto add = [&](int64_t version, const fs::path& directory,
                       const nlohmann::json& settings) -> absl::Status {
    absl::StatusOr<ModelSource> source = MakeSource(name, version, directory, settings, defaults_);
    if (!source.ok()) return source.status();
    sources.push_back(*std::move(source));
    return absl::OkStatus();
  };
  if (IsModel(model)) {
    if (absl::Status status = add(1, model, *json); !status.ok()) return status;
    return sources;
  }
  const auto versions = NumberedDirectories(model);
  if (versions.empty()) {
    const std::vector<std::string> others = MisnumberedDirectories(model);
    return absl::InvalidArgumentError(absl::StrCat(
        model.string(), ": neither a config.json nor a directory with a version's number",
        others.empty() ? "" : "; there are: ", absl::StrJoin(others, ", ")));
  }
  const absl::StatusOr<VersionPolicy> policy =
      ParseVersionPolicy(*json, (model / "serving.json").string());
  if (!policy.ok()) return policy.status();
  const absl::StatusOr<std::vector<int64_t>> chosen = Choose(versions, *policy, model.string());
  if (!chosen.ok()) return chosen.status();
  for (const int64_t version : *chosen) {
    const fs::path& directory = versions.at(version);
    absl::StatusOr<nlohmann::json> own = ReadSettings(directory);
    if (!own.ok()) return own.status();
    nlohmann::json settings = *json;
    settings.merge_patch(*own);
    settings.merge_patch(changes);
    if (absl::Status status = add(version, directory, settings); !status.ok()) return status;
    sources.back().stamp = Mix(sources.back().stamp, settings_stamp);
  }
  return sources;
}

}  // namespace evaserve
