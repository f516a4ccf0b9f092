#pragma once

#include <cuda_runtime.h>

#include <map>
#include <memory>
#include <tuple>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/device/cublaslt.h"
#include "kernels/cuda/gpu.h"

namespace evaserve {

// Matrix products by cuBLASLt. Not thread-safe.
class Multiplier {
 public:
  // Device memory that a product may use.
  static constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;  // the library's advice for Hopper

  // On the current device.
  static absl::StatusOr<std::unique_ptr<Multiplier>> Create();
  Multiplier(const Multiplier&) = delete;
  Multiplier& operator=(const Multiplier&) = delete;
  ~Multiplier();

  absl::Status Multiply(const GpuMultiplyParams& params, void* workspace, cudaStream_t stream);

 private:
  // type, y_is_float, rows, in, out, x_stride, y_stride
  using Shape = std::tuple<DType, bool, int, int, int, int64_t, int64_t>;
  struct Operands;

  Multiplier(const CublasLt& blas, cublasLtHandle_t handle) : blas_(blas), handle_(handle) {}

  absl::Status ToStatus(cublasStatus_t error, const char* what) const;
  absl::StatusOr<cublasLtMatmulAlgo_t> FindAlgorithm(const Operands& operands) const;

  const CublasLt& blas_;
  const cublasLtHandle_t handle_;
  // Which algorithm the library advises, by the shape of a product: asking takes tens of
  // microseconds.
  std::map<Shape, cublasLtMatmulAlgo_t> algorithms_;
};

}  // namespace evaserve
