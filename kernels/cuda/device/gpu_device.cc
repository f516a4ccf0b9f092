#include <cublasLt.h>
#include <cuda_runtime.h>

#include <map>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/device/staging.h"
#include "kernels/cuda/gpu.h"

namespace evaserve {
namespace {

// cublasLt's own advice for Hopper.
constexpr int64_t kMultiplyWorkspaceBytes = int64_t{32} << 20;

absl::Status ToStatus(cublasStatus_t error, const char* what) {
  if (error == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  const std::string message = absl::StrCat(what, ": ", cublasLtGetStatusString(error));
  if (error == CUBLAS_STATUS_ALLOC_FAILED) return absl::ResourceExhaustedError(message);
  return LaunchStatus(message);
}

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
  Layout(cudaDataType_t type, int64_t rows, int64_t columns, int64_t stride) {
    cublasLtMatrixLayoutCreate(&handle, type, rows, columns, stride);
  }
  Layout(const Layout&) = delete;
  ~Layout() { cublasLtMatrixLayoutDestroy(handle); }
  cublasLtMatrixLayout_t handle = nullptr;
};

struct Operation {
  Operation() {
    cublasLtMatmulDescCreate(&handle, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    const cublasOperation_t transposed = CUBLAS_OP_T;
    cublasLtMatmulDescSetAttribute(handle, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                   sizeof(transposed));
  }
  Operation(const Operation&) = delete;
  ~Operation() { cublasLtMatmulDescDestroy(handle); }
  cublasLtMatmulDesc_t handle = nullptr;
};

struct Preference {
  Preference() {
    cublasLtMatmulPreferenceCreate(&handle);
    const size_t bytes = kMultiplyWorkspaceBytes;
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
  ~Preference() { cublasLtMatmulPreferenceDestroy(handle); }
  template <typename T>
  void Set(cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
    cublasLtMatmulPreferenceSetAttribute(handle, attribute, &value, sizeof(value));
  }
  cublasLtMatmulPreference_t handle = nullptr;
};

// type, y_is_float, rows, in, out, x_stride, y_stride
using MultiplyShape = std::tuple<DType, bool, int, int, int, int64_t, int64_t>;

}  // namespace

// Without the question a thread that has no device yet would get one.
GpuMemory::~GpuMemory() {
  if (data_ != nullptr) cudaFree(data_);
}

struct Gpu::State {
  ~State() {
    if (blas != nullptr) cublasLtDestroy(blas);
    if (stream != nullptr) cudaStreamDestroy(stream);
  }
  // A thread's calls go to its current device, and the engine's thread is not the loader's.
  void MakeCurrent() const { cudaSetDevice(index); }

  // Which algorithm the library advises, by the shape of a product: asking takes tens of
  // microseconds.
  std::map<MultiplyShape, cublasLtMatmulAlgo_t> algorithms;

  int index = 0;
  cudaStream_t stream = nullptr;
  cublasLtHandle_t blas = nullptr;
  GpuMemory workspace;
  std::unique_ptr<Staging> staging;
};

struct GpuGraph::Recording {
  ~Recording() {
    if (executable != nullptr) cudaGraphExecDestroy(executable);
  }
  cudaGraphExec_t executable = nullptr;
};
GpuGraph::GpuGraph(std::unique_ptr<Recording> recording) : recording_(std::move(recording)) {}
GpuGraph::GpuGraph(GpuGraph&&) noexcept = default;
GpuGraph& GpuGraph::operator=(GpuGraph&&) noexcept = default;
GpuGraph::~GpuGraph() = default;

Gpu::Gpu(GpuInfo info, std::unique_ptr<State> state)
    : info_(std::move(info)), state_(std::move(state)) {}
Gpu::~Gpu() = default;

absl::StatusOr<std::unique_ptr<Gpu>> Gpu::Open(int index) {
  int count = 0;
  if (cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess || index >= count) {
    return absl::NotFoundError(error != cudaSuccess
                                   ? std::string(cudaGetErrorString(error))
                                   : absl::StrCat("there is no device ", index, " of ", count));
  }
  cudaDeviceProp properties = {};
  absl::Status status = ToStatus(cudaSetDevice(index), "cudaSetDevice");
  if (status.ok()) {
    status = ToStatus(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  }
  auto state = std::make_unique<State>();
  state->index = index;
  if (status.ok()) status = ToStatus(cudaStreamCreate(&state->stream), "cudaStreamCreate");
  if (status.ok()) status = ToStatus(cublasLtCreate(&state->blas), "cublasLtCreate");
  if (!status.ok()) return status;
  GpuInfo info{index, properties.name, properties.major * 10 + properties.minor,
               properties.multiProcessorCount, static_cast<int64_t>(properties.totalGlobalMem)};
  std::unique_ptr<Gpu> gpu(new Gpu(std::move(info), std::move(state)));
  absl::StatusOr<GpuMemory> workspace = gpu->Allocate(kMultiplyWorkspaceBytes);
  if (!workspace.ok()) return workspace.status();
  gpu->state_->workspace = *std::move(workspace);
  absl::StatusOr<std::unique_ptr<Staging>> staging = Staging::Create();
  if (!staging.ok()) return staging.status();
  gpu->state_->staging = *std::move(staging);
  return gpu;
}

void* Gpu::stream() const { return state_->stream; }

absl::StatusOr<GpuMemory> Gpu::Allocate(int64_t bytes) {
  state_->MakeCurrent();
  void* data = nullptr;
  absl::Status status = ToStatus(cudaMalloc(&data, bytes), "cudaMalloc");
  if (!status.ok()) return status;
  GpuMemory memory(data, bytes);
  status = ToStatus(cudaMemsetAsync(data, 0, bytes, state_->stream), "cudaMemsetAsync");
  if (!status.ok()) return status;
  return memory;
}

absl::Status Gpu::ToDevice(void* to, const void* from, int64_t bytes) {
  state_->MakeCurrent();
  return state_->staging->ToDevice(to, from, bytes, state_->stream);
}

absl::Status Gpu::ToHost(void* to, const void* from, int64_t bytes) {
  state_->MakeCurrent();
  return state_->staging->ToHost(to, from, bytes, state_->stream);
}

// To cublasLt, which counts columns first, it is y^T = weight x^T.
absl::Status Gpu::Multiply(const GpuMultiplyParams& p) {
  state_->MakeCurrent();
  const cudaDataType_t type = CudaType(p.type);
  const Operation operation;
  const Layout weight(type, p.in, p.out, p.in), x(type, p.in, p.rows, p.x_stride),
      y(p.y_is_float ? CUDA_R_32F : type, p.out, p.rows, p.y_stride);
  const MultiplyShape shape{p.type, p.y_is_float, p.rows, p.in, p.out, p.x_stride, p.y_stride};
  auto found = state_->algorithms.find(shape);
  if (found == state_->algorithms.end()) {
    const Preference preference;
    cublasLtMatmulHeuristicResult_t best;
    int num_found = 0;
    absl::Status status = ToStatus(
        cublasLtMatmulAlgoGetHeuristic(state_->blas, operation.handle, weight.handle, x.handle,
                                       y.handle, y.handle, preference.handle, 1, &best, &num_found),
        "cublasLtMatmulAlgoGetHeuristic");
    if (!status.ok()) return status;
    if (num_found == 0 || best.state != CUBLAS_STATUS_SUCCESS) {
      return LaunchStatus(absl::StrCat("cublasLt has no algorithm for a product of ", p.rows, " x ",
                                       p.in, " x ", p.out));
    }
    found = state_->algorithms.emplace(shape, best.algo).first;
  }
  const float one = 1.f, zero = 0.f;
  return ToStatus(
      cublasLtMatmul(state_->blas, operation.handle, &one, p.weight, weight.handle, p.x, x.handle,
                     &zero, p.y, y.handle, p.y, y.handle, &found->second,
                     state_->workspace.as<void>(), kMultiplyWorkspaceBytes, state_->stream),
      "cublasLtMatmul");
}

absl::StatusOr<GpuGraph> Gpu::Record(absl::FunctionRef<absl::Status()> work) {
  state_->MakeCurrent();
  absl::Status status =
      ToStatus(cudaStreamBeginCapture(state_->stream, cudaStreamCaptureModeThreadLocal),
               "cudaStreamBeginCapture");
  if (!status.ok()) return status;
  status = work();
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(state_->stream, &graph);
  if (status.ok()) status = ToStatus(ended, "cudaStreamEndCapture");
  auto recording = std::make_unique<GpuGraph::Recording>();
  if (status.ok()) {
    status = ToStatus(cudaGraphInstantiate(&recording->executable, graph, /*flags=*/0),
                      "cudaGraphInstantiate");
  }
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (!status.ok()) return status;
  return GpuGraph(std::move(recording));
}

absl::Status Gpu::Launch(const GpuGraph& graph) {
  state_->MakeCurrent();
  return ToStatus(cudaGraphLaunch(graph.recording().executable, state_->stream), "cudaGraphLaunch");
}

}  // namespace evaserve
