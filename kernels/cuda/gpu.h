#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/half.h"
#include "kernels/cuda/launch_status.h"

namespace evaserve {

struct GpuInfo {
  int index = 0;
  std::string name;
  int compute_capability = 0;  // 90 for sm_90
  int num_multiprocessors = 0;
  int64_t total_bytes = 0;
};

// Device memory. It goes before its Gpu.
class GpuMemory {
 public:
  GpuMemory() = default;
  GpuMemory(void* data, int64_t size) : data_(data), size_(size) {}
  GpuMemory(GpuMemory&& other) noexcept { *this = std::move(other); }
  GpuMemory& operator=(GpuMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~GpuMemory();

  int64_t size() const { return size_; }  // bytes
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  int64_t size_ = 0;
};

// y = x weight^T: x is [rows, in], weight [out, in], both of `type`; y is [rows, out].
struct GpuMultiplyParams {
  DType type = DType::kBFloat16;
  const void* x = nullptr;
  int64_t x_stride = 0;  // elements between two rows; a multiple of 8, as are the others
  const void* weight = nullptr;
  void* y = nullptr;
  int64_t y_stride = 0;
  bool y_is_float = false;  // float32, else `type`
  int rows = 0;
  int in = 0;
  int out = 0;
};

// What a Gpu was told to do once, to be done again at the cost of one launch. It goes before its
// Gpu.
class GpuGraph {
 public:
  struct Recording;

  explicit GpuGraph(std::unique_ptr<Recording> recording);
  GpuGraph(GpuGraph&&) noexcept;
  GpuGraph& operator=(GpuGraph&&) noexcept;
  ~GpuGraph();

  const Recording& recording() const { return *recording_; }

 private:
  std::unique_ptr<Recording> recording_;
};

// A device with one stream, on which everything below runs in order. Which one it is, a real device
// or the emulator, the program's libraries decide. Not thread-safe.
//
// Errors: ResourceExhausted if there is no memory; Unavailable, with the driver's words, for all
// else: then the device is lost to this process.
class Gpu {
 public:
  // NotFound if there is no such device, or no driver.
  static absl::StatusOr<std::unique_ptr<Gpu>> Open(int index);
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;
  ~Gpu();

  const GpuInfo& info() const { return info_; }
  // For the launchers (launchers.h).
  void* stream() const;

  // Zeros.
  absl::StatusOr<GpuMemory> Allocate(int64_t bytes);

  // Through pinned memory; `from` may change as soon as it returns.
  absl::Status ToDevice(void* to, const void* from, int64_t bytes);
  // Waits for all that came before.
  absl::Status ToHost(void* to, const void* from, int64_t bytes);

  absl::Status Multiply(const GpuMultiplyParams& params);

  // Notes what `work` launches instead of doing it: kernels and products with the addresses that
  // they have then. It may neither allocate nor copy, and must have run before, so that kernels are
  // loaded and algorithms chosen.
  absl::StatusOr<GpuGraph> Record(absl::FunctionRef<absl::Status()> work);
  absl::Status Launch(const GpuGraph& graph);

 private:
  struct State;

  Gpu(GpuInfo info, std::unique_ptr<State> state);

  const GpuInfo info_;
  const std::unique_ptr<State> state_;
};

// Makes `memory` at least `bytes` long, with room for somewhat more; what it held is lost.
inline absl::Status Grow(Gpu& gpu, int64_t bytes, GpuMemory& memory) {
  if (memory.size() >= bytes) return absl::OkStatus();
  memory = GpuMemory();
  absl::StatusOr<GpuMemory> larger = gpu.Allocate(bytes + bytes / 2);
  if (!larger.ok()) return larger.status();
  memory = *std::move(larger);
  return absl::OkStatus();
}

}  // namespace evaserve
