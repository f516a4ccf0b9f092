#include "models/testing/temp_dir.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

namespace evaserve {
namespace {

[[noreturn]] void Die(const std::filesystem::path& path) {
  std::perror(path.c_str());
  std::abort();
}

}  // namespace

TempDir::TempDir() {
  std::string name = (std::filesystem::temp_directory_path() / "evaserve-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) Die(name);
  path_ = name;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void WriteFile(const std::filesystem::path& path, std::string_view contents) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(contents.data(), static_cast<std::streamsize>(contents.size()));
  if (!file.flush()) Die(path);
}

}  // namespace evaserve
