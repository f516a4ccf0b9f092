#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "models/io/safetensors.h"

namespace evaserve {

// The weights of a model directory: model.safetensors, or the shards that
// model.safetensors.index.json names. Immutable, thread-safe; views live as long as the object.
class Checkpoint {
 public:
  struct Tensor {
    const TensorView* view = nullptr;
    const std::filesystem::path* file = nullptr;
  };

  // NotFound, naming the file, if there are no weights or a shard is missing; InvalidArgument,
  // naming the file and the tensor, if a file is malformed or a shard lacks a tensor that the index
  // places in it.
  static absl::StatusOr<Checkpoint> Open(const std::filesystem::path& directory);

  // Empty `view` if there is none.
  Tensor Find(std::string_view name) const;

  std::vector<std::string> names() const;

  // The file that should name a tensor: model.safetensors or the index.
  const std::filesystem::path& root_file() const { return root_file_; }

 private:
  absl::Status OpenShards();

  std::filesystem::path root_file_;
  std::vector<Safetensors> files_;
  std::map<std::string, size_t, std::less<>> file_of_;  // index into files_, by tensor
};

// InvalidArgument, naming the tensor and `key`, if there is one of a layer beyond num_layers, which
// config.json has as `key`: such a checkpoint would load and answer nonsense. `prefix` as in
// "model.layers.".
absl::Status CheckNoFurtherLayer(const Checkpoint& checkpoint, std::string_view prefix,
                                 int num_layers, const std::string& key = "num_hidden_layers");

}  // namespace evaserve
