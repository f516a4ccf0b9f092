#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace evaserve {

// What the CUDA runtime says, as a status: ResourceExhausted for memory, Unavailable for all else.
absl::Status ToStatus(cudaError_t error, const char* what);

// Pinned host memory between a program's memory and a device: the device copies one piece while the
// next is written, and the caller's memory is free again when a call returns. Not thread-safe.
class Staging {
 public:
  static absl::StatusOr<std::unique_ptr<Staging>> Create();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  ~Staging();

  absl::Status ToDevice(void* to, const void* from, int64_t bytes, cudaStream_t stream);
  // Waits for all that came before in `stream`.
  absl::Status ToHost(void* to, const void* from, int64_t bytes, cudaStream_t stream);

 private:
  static constexpr int64_t kPieceBytes = int64_t{4} << 20;
  struct Piece {
    char* data = nullptr;
    cudaEvent_t copied = nullptr;  // by the device
  };

  Staging() = default;

  std::array<Piece, 4> pieces_;
  size_t next_ = 0;
};

}  // namespace evaserve
