#include "kernels/cuda/emulator/gpu_emulated.h"

#include <sys/mman.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/launch.h"

namespace evaserve {
namespace {

// Who reads on after the end of device memory, or memory that was freed, shall not get far: each
// piece ends where a page of the system begins that nobody may touch.
constexpr int64_t kSystemPage = 4096;

int64_t RoundUp(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

struct Region {
  explicit Region(int64_t bytes)
      : mapped(RoundUp(bytes, kSystemPage) + kSystemPage),
        before(mapped - kSystemPage - RoundUp(bytes, kAlignment)) {}
  static constexpr int64_t kAlignment = 1024;  // what a page's image needs
  int64_t mapped, before;
};

EmulatedGpu next_gpu;
int64_t used_bytes = 0;

void Multiply(const GpuMultiplyParams& p) {
  const DType y_type = p.y_is_float ? DType::kFloat32 : p.type;
  for (int64_t row = 0; row < p.rows; ++row) {
    for (int64_t column = 0; column < p.out; ++column) {
      float sum = 0.f;
      for (int64_t i = 0; i < p.in; ++i) {
        sum += LoadElement(p.x, p.type, row * p.x_stride + i) *
               LoadElement(p.weight, p.type, column * p.in + i);
      }
      StoreElement(p.y, y_type, row * p.y_stride + column, sum);
    }
  }
}

}  // namespace

bool SetEmulatedGpu(const EmulatedGpu& gpu) {
  next_gpu = gpu;
  return true;
}

struct Gpu::State {
  // What a recording may not do: copy and allocate.
  absl::Status MayMoveMemory() const {
    return stream.recording == nullptr
               ? absl::OkStatus()
               : absl::UnavailableError("memory is moved while work is recorded");
  }

  EmulatedStream stream;
};

struct GpuGraph::Recording {
  EmulatedStream::Work work;
};
GpuGraph::GpuGraph(std::unique_ptr<Recording> recording) : recording_(std::move(recording)) {}
GpuGraph::GpuGraph(GpuGraph&&) noexcept = default;
GpuGraph& GpuGraph::operator=(GpuGraph&&) noexcept = default;
GpuGraph::~GpuGraph() = default;

GpuMemory::~GpuMemory() {
  if (data_ == nullptr) return;
  const Region region(size_);
  munmap(static_cast<char*>(data_) - region.before, region.mapped);
  used_bytes -= size_;
}

Gpu::Gpu(GpuInfo info, std::unique_ptr<State> state)
    : info_(std::move(info)), state_(std::move(state)) {}
Gpu::~Gpu() = default;

absl::StatusOr<std::unique_ptr<Gpu>> Gpu::Open(int index) {
  if (index != 0) return absl::NotFoundError(absl::StrCat("there is no device ", index));
  GpuInfo info{index, "emulated", next_gpu.compute_capability, next_gpu.num_multiprocessors,
               next_gpu.total_bytes};
  return std::unique_ptr<Gpu>(new Gpu(std::move(info), std::make_unique<State>()));
}

void* Gpu::stream() const { return &state_->stream; }

absl::StatusOr<GpuMemory> Gpu::Allocate(int64_t bytes) {
  if (absl::Status status = state_->MayMoveMemory(); !status.ok()) return status;
  if (used_bytes + bytes > info_.total_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat("device memory: ", bytes,
                                                     " bytes are needed and ",
                                                     info_.total_bytes - used_bytes, " are free"));
  }
  const Region region(bytes);
  void* const base =
      mmap(nullptr, region.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) return absl::ResourceExhaustedError("device memory: mmap failed");
  mprotect(static_cast<char*>(base) + region.mapped - kSystemPage, kSystemPage, PROT_NONE);
  used_bytes += bytes;
  return GpuMemory(static_cast<char*>(base) + region.before, bytes);
}

absl::Status Gpu::ToDevice(void* to, const void* from, int64_t bytes) {
  if (absl::Status status = state_->MayMoveMemory(); !status.ok()) return status;
  std::memcpy(to, from, bytes);
  return absl::OkStatus();
}

absl::Status Gpu::ToHost(void* to, const void* from, int64_t bytes) {
  if (absl::Status status = state_->MayMoveMemory(); !status.ok()) return status;
  std::memcpy(to, from, bytes);
  return absl::OkStatus();
}

absl::Status Gpu::Multiply(const GpuMultiplyParams& params) {
  state_->stream.Do([params]() -> std::string {
    evaserve::Multiply(params);
    return "";
  });
  return absl::OkStatus();
}

absl::StatusOr<GpuGraph> Gpu::Record(absl::FunctionRef<absl::Status()> work) {
  auto recording = std::make_unique<GpuGraph::Recording>();
  state_->stream.recording = &recording->work;
  const absl::Status status = work();
  state_->stream.recording = nullptr;
  if (!status.ok()) return status;
  return GpuGraph(std::move(recording));
}

absl::Status Gpu::Launch(const GpuGraph& graph) {
  for (const auto& piece : graph.recording().work) {
    if (absl::Status status = LaunchStatus(piece()); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace evaserve
