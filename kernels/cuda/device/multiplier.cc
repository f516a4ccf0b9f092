#include "kernels/cuda/device/multiplier.h"

#include "absl/strings/str_cat.h"
#include "kernels/cuda/launch_status.h"

namespace evaserve {
namespace {

cudaDataType_t CudaType(DType type) {
  switch (type) {
    case DType::kFloat32:
      return CUDA_R_32F;
    case DType::kBFloat16:
      return CUDA_R_16BF;
    case DType::kFloat16:
      return CUDA_R_16F;
  }
  return CUDA_R_32F;
}

struct Layout {
  Layout(const CublasLt& blas, cudaDataType_t type, int64_t rows, int64_t columns, int64_t stride)
      : blas(blas) {
    blas.MatrixLayoutCreate(&handle, type, rows, columns, stride);
  }
  Layout(const Layout&) = delete;
  ~Layout() { blas.MatrixLayoutDestroy(handle); }
  const CublasLt& blas;
  cublasLtMatrixLayout_t handle = nullptr;
};

struct Operation {
  explicit Operation(const CublasLt& blas) : blas(blas) {
    blas.MatmulDescCreate(&handle, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    const cublasOperation_t transposed = CUBLAS_OP_T;
    blas.MatmulDescSetAttribute(handle, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                sizeof(transposed));
  }
  Operation(const Operation&) = delete;
  ~Operation() { blas.MatmulDescDestroy(handle); }
  const CublasLt& blas;
  cublasLtMatmulDesc_t handle = nullptr;
};

struct Preference {
  explicit Preference(const CublasLt& blas) : blas(blas) {
    blas.MatmulPreferenceCreate(&handle);
    const size_t bytes = Multiplier::kWorkspaceBytes;
    Set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, bytes);
    // Weights begin where memory does; the rest are rows of something.
    const uint32_t row_alignment = 16;
    Set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, row_alignment);
    Set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, row_alignment);
    Set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, row_alignment);
    // Parts of a sum are added in float32.
    const uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    Set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reduction);
  }
  Preference(const Preference&) = delete;
  ~Preference() { blas.MatmulPreferenceDestroy(handle); }
  template <typename T>
  void Set(cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
    blas.MatmulPreferenceSetAttribute(handle, attribute, &value, sizeof(value));
  }
  const CublasLt& blas;
  cublasLtMatmulPreference_t handle = nullptr;
};

}  // namespace

// To cublasLt, which counts columns first, it is y^T = weight x^T.
struct Multiplier::Operands {
  Operands(const CublasLt& blas, const GpuMultiplyParams& p)
      : operation(blas),
        weight(blas, CudaType(p.type), p.in, p.out, p.in),
        x(blas, CudaType(p.type), p.in, p.rows, p.x_stride),
        y(blas, p.y_is_float ? CUDA_R_32F : CudaType(p.type), p.out, p.rows, p.y_stride) {}
  const Operation operation;
  const Layout weight, x, y;
};

absl::StatusOr<std::unique_ptr<Multiplier>> Multiplier::Create() {
  const absl::StatusOr<const CublasLt*> blas = LoadCublasLt();
  if (!blas.ok()) return blas.status();
  cublasLtHandle_t handle = nullptr;
  const cublasStatus_t error = (*blas)->Create(&handle);
  std::unique_ptr<Multiplier> multiplier(new Multiplier(**blas, handle));
  absl::Status status = multiplier->ToStatus(error, "cublasLtCreate");
  if (!status.ok()) return status;
  return multiplier;
}

Multiplier::~Multiplier() {
  if (handle_ != nullptr) blas_.Destroy(handle_);
}

absl::Status Multiplier::ToStatus(cublasStatus_t error, const char* what) const {
  if (error == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  const std::string message = absl::StrCat(what, ": ", blas_.GetStatusString(error));
  if (error == CUBLAS_STATUS_ALLOC_FAILED) return absl::ResourceExhaustedError(message);
  return LaunchStatus(message);
}

absl::StatusOr<cublasLtMatmulAlgo_t> Multiplier::FindAlgorithm(const Operands& operands) const {
  const Preference preference(blas_);
  cublasLtMatmulHeuristicResult_t best;
  int num_found = 0;
  absl::Status status =
      ToStatus(blas_.MatmulAlgoGetHeuristic(
                   handle_, operands.operation.handle, operands.weight.handle, operands.x.handle,
                   operands.y.handle, operands.y.handle, preference.handle, 1, &best, &num_found),
               "cublasLtMatmulAlgoGetHeuristic");
  if (!status.ok()) return status;
  if (num_found == 0 || best.state != CUBLAS_STATUS_SUCCESS) {
    return LaunchStatus("cublasLt has no algorithm for a product");
  }
  return best.algo;
}

absl::Status Multiplier::Multiply(const GpuMultiplyParams& p, void* workspace,
                                  cudaStream_t stream) {
  const Operands operands(blas_, p);
  const Shape shape{p.type, p.y_is_float, p.rows, p.in, p.out, p.x_stride, p.y_stride};
  auto found = algorithms_.find(shape);
  if (found == algorithms_.end()) {
    const absl::StatusOr<cublasLtMatmulAlgo_t> algorithm = FindAlgorithm(operands);
    if (!algorithm.ok()) {
      return absl::Status(algorithm.status().code(),
                          absl::StrCat(std::string(algorithm.status().message()), " of ", p.rows,
                                       " x ", p.in, " x ", p.out));
    }
    found = algorithms_.emplace(shape, *algorithm).first;
  }
  const float one = 1.f, zero = 0.f;
  return ToStatus(
      blas_.Matmul(handle_, operands.operation.handle, &one, p.weight, operands.weight.handle, p.x,
                   operands.x.handle, &zero, p.y, operands.y.handle, p.y, operands.y.handle,
                   &found->second, workspace, kWorkspaceBytes, stream),
      "cublasLtMatmul");
}

}  // namespace evaserve
