#include "kernels/cuda/device/cublaslt.h"

#include <dlfcn.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

// First where the system looks, then where the build found it.
void* OpenLibrary(std::string& error) {
  for (const char* path : {"libcublasLt.so.13", EVASERVE_CUBLASLT_PATH}) {
    void* const library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) return library;
    error = dlerror();
  }
  return nullptr;
}

absl::StatusOr<CublasLt> Load() {
  std::string error;
  void* const library = OpenLibrary(error);
  if (library == nullptr) return absl::NotFoundError(absl::StrCat("cuBLASLt: ", error));
  const auto find = [&]<typename Function>(const char* name, Function& function) {
    function = reinterpret_cast<Function>(dlsym(library, name));
    if (function == nullptr) error = absl::StrCat("cuBLASLt has no ", name);
  };
  error.clear();
  CublasLt blas;
  find("cublasLtCreate", blas.Create);
  find("cublasLtDestroy", blas.Destroy);
  find("cublasLtGetStatusString", blas.GetStatusString);
  find("cublasLtMatmul", blas.Matmul);
  find("cublasLtMatmulAlgoGetHeuristic", blas.MatmulAlgoGetHeuristic);
  find("cublasLtMatmulDescCreate", blas.MatmulDescCreate);
  find("cublasLtMatmulDescDestroy", blas.MatmulDescDestroy);
  find("cublasLtMatmulDescSetAttribute", blas.MatmulDescSetAttribute);
  find("cublasLtMatmulPreferenceCreate", blas.MatmulPreferenceCreate);
  find("cublasLtMatmulPreferenceDestroy", blas.MatmulPreferenceDestroy);
  find("cublasLtMatmulPreferenceSetAttribute", blas.MatmulPreferenceSetAttribute);
  find("cublasLtMatrixLayoutCreate", blas.MatrixLayoutCreate);
  find("cublasLtMatrixLayoutDestroy", blas.MatrixLayoutDestroy);
  if (!error.empty()) return absl::NotFoundError(error);
  return blas;
}

}  // namespace

absl::StatusOr<const CublasLt*> LoadCublasLt() {
  static const absl::StatusOr<CublasLt> blas = Load();
  if (!blas.ok()) return blas.status();
  return &*blas;
}

}  // namespace evaserve
