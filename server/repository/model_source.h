#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "server/repository/serving_settings.h"

namespace evaserve {

// One version of a model, ready to be loaded.
struct ModelSource {
  std::string name;
  int64_t version = 1;
  std::filesystem::path directory;  // with config.json
  ServingSettings settings;
  // Of the directory's files (names, sizes, times), and of settings beside numbered versions.
  // Another one: they have changed.
  uint64_t stamp = 0;
};

// The names that a model may have are those that are one component of a path and that a log line
// and a URL can hold: InvalidArgument for any other.
absl::Status CheckModelName(std::string_view name);

// The model in a directory of its own, with the serving.json that lies in it, before which
// `changes` count. Errors as RepositoryDirectory::Versions()'s.
absl::StatusOr<ModelSource> SourceOf(const std::string& name,
                                     const std::filesystem::path& directory,
                                     const ServingSettings& defaults,
                                     const nlohmann::json& changes = nlohmann::json::object());

// A directory of models:
//
//   REPOSITORY/NAME/config.json, ...           version 1
//   REPOSITORY/NAME/serving.json               settings (optional)
// or
//   REPOSITORY/NAME/VERSION/config.json, ...   numbered versions
//   REPOSITORY/NAME/VERSION/serving.json       settings of one, before those of all
//   REPOSITORY/NAME/serving.json               settings of all, and "version_policy"
//
// Nothing outside of it is read but what links in it lead to. Immutable.
class RepositoryDirectory {
 public:
  // What serving.json does not say is as in `defaults`.
  RepositoryDirectory(std::filesystem::path path, ServingSettings defaults)
      : path_(std::move(path)), defaults_(std::move(defaults)) {}

  const std::filesystem::path& path() const { return path_; }

  // The names of its models, sorted: of every directory that holds a config.json, a serving.json or
  // directories with versions, but hidden ones. NotFound if the repository is not there.
  absl::StatusOr<std::vector<std::string>> Names() const;

  // Whether there is a directory of that name, with whatever in it; true if that cannot be told.
  bool Has(const std::string& name) const;

  // The directories of a model with numbered versions that hold a config.json and are no version by
  // their names, as "v2" and "02" are not; sorted.
  std::vector<std::string> Misnumbered(const std::string& name) const;

  // The versions of a model that its policy chooses, by number. `changes` counts before every
  // serving.json. Errors: NotFound if there is no such model; InvalidArgument,
  // naming the file, for a bad serving.json or a model without a config.json.
  absl::StatusOr<std::vector<ModelSource>> Versions(
      const std::string& name, const nlohmann::json& changes = nlohmann::json::object()) const;

 private:
  const std::filesystem::path path_;
  const ServingSettings defaults_;
};

}  // namespace evaserve
