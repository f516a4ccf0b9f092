#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "kernels/linear.h"
#include "models/io/checkpoint.h"

namespace evaserve {

// Reads a checkpoint's tensors one after another and keeps the first error, like JsonFields.
//
// An error is an InvalidArgument that names the file and the tensor: one that is missing, has
// another shape than asked for, a size of 0, or a type other than F32, BF16 and F16; or one that
// config.json has no place for though it would change the results. After an error all results are
// empty.
class TensorReader {
 public:
  // `prefix` begins the names of all tensors: that of a part of the model.
  explicit TensorReader(const Checkpoint& checkpoint, std::string prefix = "")
      : checkpoint_(checkpoint), prefix_(std::move(prefix)) {}

  const absl::Status& status() const { return status_; }
  int64_t num_parameters() const { return num_parameters_; }  // of all that was read
  int64_t vector_bytes() const { return vector_bytes_; }      // that Vector() has returned

  bool Has(const std::string& name) const;

  // An error if there is this tensor, for which there is no place by what config.json says of
  // `key`.
  void RequireAbsent(const std::string& name, const std::string& key);

  // CheckNoFurtherLayer().
  void RequireNoFurtherLayer(const std::string& prefix, int num_layers, const std::string& key);

  // As float32, whatever its type.
  std::vector<float> Vector(const std::string& name, const std::vector<int64_t>& shape);

  // As it lies in the checkpoint: all dimensions but the first are in_features.
  WeightView View(const std::string& name, const std::vector<int64_t>& shape);

 private:
  void Fail(const std::filesystem::path& file, const std::string& name, const std::string& problem);

  const Checkpoint& checkpoint_;
  const std::string prefix_;
  absl::Status status_;
  int64_t num_parameters_ = 0;
  int64_t vector_bytes_ = 0;
};

}  // namespace evaserve
