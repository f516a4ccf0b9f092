#include <cuda_runtime.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/device/multiplier.h"
#include "kernels/cuda/device/staging.h"
#include "kernels/cuda/gpu.h"

namespace evaserve {

// Without the question a thread that has no device yet would get one.
GpuMemory::~GpuMemory() {
  if (data_ != nullptr) cudaFree(data_);
}

struct Gpu::State {
  ~State() {
    if (stream != nullptr) cudaStreamDestroy(stream);
  }
  // A thread's calls go to its current device, and the engine's thread is not the loader's.
  void MakeCurrent() const { cudaSetDevice(index); }

  int index = 0;
  cudaStream_t stream = nullptr;
  std::unique_ptr<Multiplier> multiplier;
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
  if (!status.ok()) return status;
  absl::StatusOr<std::unique_ptr<Multiplier>> multiplier = Multiplier::Create();
  if (!multiplier.ok()) return multiplier.status();
  state->multiplier = *std::move(multiplier);
  GpuInfo info{index, properties.name, properties.major * 10 + properties.minor,
               properties.multiProcessorCount, static_cast<int64_t>(properties.totalGlobalMem)};
  std::unique_ptr<Gpu> gpu(new Gpu(std::move(info), std::move(state)));
  absl::StatusOr<GpuMemory> workspace = gpu->Allocate(Multiplier::kWorkspaceBytes);
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

absl::Status Gpu::Multiply(const GpuMultiplyParams& params) {
  state_->MakeCurrent();
  return state_->multiplier->Multiply(params, state_->workspace.as<void>(), state_->stream);
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
