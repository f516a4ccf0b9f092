#include "kernels/cuda/emulator/gpu_emulated.h"

#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/launch.h"

namespace evaserve {
namespace {

EmulatedGpu next_gpu;
int64_t used_bytes = 0;

template <DType kType>
void Multiply(const GpuMultiplyParams& p) {
  for (int64_t row = 0; row < p.rows; ++row) {
    for (int64_t column = 0; column < p.out; ++column) {
      const auto* x = static_cast<const uint16_t*>(p.x) + row * p.x_stride;
      const auto* weight = static_cast<const uint16_t*>(p.weight) + column * p.in;
      float sum = 0.f;
      for (int i = 0; i < p.in; ++i) {
        sum += FloatFromHalf<kType>(x[i]) * FloatFromHalf<kType>(weight[i]);
      }
      const int64_t at = row * p.y_stride + column;
      if (p.y_is_float) {
        static_cast<float*>(p.y)[at] = sum;
      } else {
        static_cast<uint16_t*>(p.y)[at] = HalfFromFloat<kType>(sum);
      }
    }
  }
}

}  // namespace

bool SetEmulatedGpu(const EmulatedGpu& gpu) {
  next_gpu = gpu;
  return true;
}

struct Gpu::State {
  EmulatedStream stream;
};

GpuMemory::~GpuMemory() {
  std::free(data_);
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
  if (used_bytes + bytes > info_.total_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat("device memory: ", bytes,
                                                     " bytes are needed and ",
                                                     info_.total_bytes - used_bytes, " are free"));
  }
  constexpr int64_t kAlignment = 1024;
  const int64_t size = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  void* const data = std::aligned_alloc(kAlignment, size);
  std::memset(data, 0, size);
  used_bytes += bytes;
  return GpuMemory(data, bytes);
}

absl::Status Gpu::ToDevice(void* to, const void* from, int64_t bytes) {
  std::memcpy(to, from, bytes);
  return absl::OkStatus();
}

absl::Status Gpu::ToHost(void* to, const void* from, int64_t bytes) {
  std::memcpy(to, from, bytes);
  return absl::OkStatus();
}

absl::Status Gpu::Multiply(const GpuMultiplyParams& params) {
  if (params.type == DType::kBFloat16) {
    evaserve::Multiply<DType::kBFloat16>(params);
  } else {
    evaserve::Multiply<DType::kFloat16>(params);
  }
  return absl::OkStatus();
}

}  // namespace evaserve
