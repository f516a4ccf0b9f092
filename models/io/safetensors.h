#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "models/io/mapped_file.h"

namespace evaserve {

struct TensorView {
  std::string dtype;  // as the file writes it: "F32", "BF16", "I32", ...
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;  // row-major, aligned for its elements
};

// "[2, 3]"
std::string ShapeText(std::span<const int64_t> shape);

// One .safetensors file, mapped. Immutable, thread-safe; views live as long as the object.
//
// Format: https://github.com/huggingface/safetensors#format. The header is checked in full when
// the file is opened: a tensor that was found can be read.
class Safetensors {
 public:
  // NotFound for a missing file; InvalidArgument, naming the file and the tensor, for a header that
  // is malformed, unknown types, names that come twice, sizes that contradict shapes, and data that
  // overlap, leave a hole or end before or after the file does.
  static absl::StatusOr<Safetensors> Open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  const std::map<std::string, TensorView, std::less<>>& tensors() const { return tensors_; }

  // Null if there is none.
  const TensorView* Find(std::string_view name) const;

 private:
  Safetensors(std::filesystem::path path, MappedFile file)
      : path_(std::move(path)), file_(std::move(file)) {}

  absl::Status ParseHeader();
  absl::Status CheckCoverage(size_t data_bytes) const;
  void AlignData();

  std::filesystem::path path_;
  MappedFile file_;
  std::map<std::string, TensorView, std::less<>> tensors_;
  // Copies of data that the file does not align.
  std::vector<std::unique_ptr<std::byte[]>> copies_;
};

}  // namespace evaserve
