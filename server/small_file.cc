#include "server/small_file.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

constexpr std::streamsize kMaxBytes = 1 << 20;

absl::Status Unusable(const std::filesystem::path& path, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(path.string(), ": ", why));
}

}  // namespace

absl::StatusOr<std::string> ReadSmallFile(const std::filesystem::path& path) {
  std::error_code error;
  // Asked first: opening a pipe would wait for somebody to write into it.
  const bool is_file = std::filesystem::is_regular_file(path, error);
  if (error) return Unusable(path, error.message());
  if (!is_file) return Unusable(path, "is no regular file");

  std::ifstream file(path, std::ios::binary);
  if (!file) return Unusable(path, strerror(errno));
  std::string bytes(kMaxBytes + 1, '\0');
  file.read(bytes.data(), kMaxBytes + 1);
  if (file.bad()) return Unusable(path, "cannot be read");
  if (file.gcount() > kMaxBytes) {
    return Unusable(path, absl::StrCat("is larger than ", kMaxBytes, " bytes"));
  }
  bytes.resize(file.gcount());
  return bytes;
}

}  // namespace evaserve
