#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <utility>

#include "absl/status/statusor.h"

namespace evaserve {

// A file mapped into memory for reading. Move-only; immutable, thread-safe.
class MappedFile {
 public:
  // NotFound if there is none, InvalidArgument if it is no regular file, Internal if the system
  // refuses; each names the file.
  static absl::StatusOr<MappedFile> Open(const std::filesystem::path& path);

  MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~MappedFile();

  // Page-aligned, valid as long as the object.
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  explicit MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::span<const std::byte> bytes_;
};

}  // namespace evaserve
