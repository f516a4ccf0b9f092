#include "models/package/torch_library.h"

#include <dlfcn.h>

#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

namespace fs = std::filesystem;

constexpr char kLibrary[] = "libevaserve_torch_models.so";

absl::Status Missing(const std::string& what) {
  return absl::FailedPreconditionError(absl::StrCat("packages need ", kLibrary,
                                                    " and LibTorch " EVASERVE_TORCH_VERSION ": ",
                                                    what, " (--torch-library, docs/models.md)"));
}

absl::StatusOr<fs::path> Find(const fs::path& library) {
  std::error_code error;
  if (!library.empty()) {
    // dlopen() would search the system for a name without a folder.
    if (fs::is_regular_file(library, error)) return fs::absolute(library, error);
    return Missing(absl::StrCat(library.string(), " is no file"));
  }
  const fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  if (folder.empty()) return kLibrary;  // there is no /proc
  for (const fs::path& place : {folder / kLibrary, folder / "../lib" / kLibrary}) {
    if (fs::is_regular_file(place, error)) return place;
  }
  return kLibrary;  // where the system looks for libraries
}

template <typename Fn>
absl::StatusOr<Fn*> Symbol(void* library, const fs::path& path, const char* name) {
  void* const symbol = dlsym(library, name);
  if (symbol == nullptr) return Missing(absl::StrCat(path.string(), " has no ", name));
  return reinterpret_cast<Fn*>(symbol);
}

// The same path gives the same library; it is never closed, as LibTorch's threads may be in it.
absl::StatusOr<LoadTorchProgramFn*> Open(const fs::path& path) {
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return Missing(dlerror());
  const auto version = Symbol<TorchModelsVersionFn>(library, path, kTorchModelsVersion);
  if (!version.ok()) return version.status();
  if (std::string_view((*version)()) != EVASERVE_VERSION) {
    return Missing(absl::StrCat(path.string(), " is of evaserve ", (*version)(),
                                ", the server is " EVASERVE_VERSION));
  }
  return Symbol<LoadTorchProgramFn>(library, path, kLoadTorchProgram);
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorProgram>> LoadTorchProgram(const fs::path& library,
                                                                const ProgramOptions& options) {
  const absl::StatusOr<fs::path> path = Find(library);
  if (!path.ok()) return path.status();
  const absl::StatusOr<LoadTorchProgramFn*> load = Open(*path);
  if (!load.ok()) return load.status();
  absl::StatusOr<std::unique_ptr<TensorProgram>> program;
  (*load)(options, program);
  return program;
}

}  // namespace evaserve
