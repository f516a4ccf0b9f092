#include "models/io/checkpoint.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "models/io/json_file.h"

namespace evaserve {
namespace {

namespace fs = std::filesystem;

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";

// A shard lies beside its index. Anything else would let a checkpoint read other files.
bool IsPlainFileName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
}

}  // namespace

absl::StatusOr<Checkpoint> Checkpoint::Open(const fs::path& directory) {
  Checkpoint checkpoint;
  std::error_code ignored;
  if (fs::exists(directory / kIndexFile, ignored) &&
      !fs::exists(directory / kSingleFile, ignored)) {
    checkpoint.root_file_ = directory / kIndexFile;
    if (absl::Status status = checkpoint.OpenShards(); !status.ok()) return status;
    return checkpoint;
  }
  checkpoint.root_file_ = directory / kSingleFile;
  absl::StatusOr<Safetensors> file = Safetensors::Open(checkpoint.root_file_);
  if (!file.ok()) return file.status();
  for (const auto& [name, view] : file->tensors()) checkpoint.file_of_.emplace(name, 0);
  checkpoint.files_.push_back(*std::move(file));
  return checkpoint;
}

absl::Status Checkpoint::OpenShards() {
  const absl::StatusOr<nlohmann::json> index = ReadJsonObject(root_file_);
  if (!index.ok()) return index.status();
  const auto weight_map = index->find("weight_map");
  if (weight_map == index->end() || !weight_map->is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(root_file_.string(), ": no \"weight_map\""));
  }
  std::map<std::string, size_t> opened;
  for (const auto& [name, shard] : weight_map->items()) {
    if (!shard.is_string() || !IsPlainFileName(shard.get<std::string>())) {
      return absl::InvalidArgumentError(
          absl::StrCat(root_file_.string(), ": weight_map: tensor \"", name,
                       "\": ", JsonExcerpt(shard), " is not the name of a file in this directory"));
    }
    const auto [entry, is_new] = opened.emplace(shard.get<std::string>(), files_.size());
    if (is_new) {
      absl::StatusOr<Safetensors> file = Safetensors::Open(root_file_.parent_path() / entry->first);
      if (!file.ok()) return file.status();
      files_.push_back(*std::move(file));
    }
    if (files_[entry->second].Find(name) == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(files_[entry->second].path().string(),
                                                     ": no tensor \"", name, "\", which ",
                                                     kIndexFile, " places in this shard"));
    }
    file_of_.emplace(name, entry->second);
  }
  return absl::OkStatus();
}

Checkpoint::Tensor Checkpoint::Find(std::string_view name) const {
  const auto found = file_of_.find(name);
  if (found == file_of_.end()) return {};
  const Safetensors& file = files_[found->second];
  return {file.Find(name), &file.path()};
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> names;
  for (const auto& [name, file] : file_of_) names.push_back(name);
  return names;
}

absl::Status CheckNoFurtherLayer(const Checkpoint& checkpoint, std::string_view prefix,
                                 int num_layers, const std::string& key) {
  for (const std::string& name : checkpoint.names()) {
    if (!name.starts_with(prefix)) continue;
    int layer = 0;
    const size_t dot = std::min(name.find('.', prefix.size()), name.size());
    if (!absl::SimpleAtoi(name.substr(prefix.size(), dot - prefix.size()), &layer)) continue;
    if (layer < num_layers) continue;
    return absl::InvalidArgumentError(absl::StrCat(checkpoint.root_file().string(), ": tensor \"",
                                                   name, "\": config.json has ", key, " ",
                                                   num_layers));
  }
  return absl::OkStatus();
}

}  // namespace evaserve
