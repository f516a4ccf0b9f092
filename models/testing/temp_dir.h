#pragma once

#include <filesystem>
#include <string_view>

namespace evaserve {

// A new directory, removed with all that is in it.
class TempDir {
 public:
  TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir();

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Replaces the file; aborts if that fails, since no test can go on then.
void WriteFile(const std::filesystem::path& path, std::string_view contents);

}  // namespace evaserve
