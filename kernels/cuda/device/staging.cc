#include "kernels/cuda/device/staging.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/launch_status.h"

namespace evaserve {

absl::Status ToStatus(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string message = absl::StrCat(what, ": ", cudaGetErrorString(error));
  if (error != cudaErrorMemoryAllocation) return LaunchStatus(message);
  cudaGetLastError();  // this one leaves the device usable
  return absl::ResourceExhaustedError(message);
}

absl::StatusOr<std::unique_ptr<Staging>> Staging::Create() {
  std::unique_ptr<Staging> staging(new Staging);
  for (Piece& piece : staging->pieces_) {
    absl::Status status = ToStatus(cudaMallocHost(&piece.data, kPieceBytes), "cudaMallocHost");
    if (!status.ok()) return status;
    status = ToStatus(cudaEventCreateWithFlags(&piece.copied, cudaEventDisableTiming),
                      "cudaEventCreate");
    if (!status.ok()) return status;
  }
  return staging;
}

Staging::~Staging() {
  for (const Piece& piece : pieces_) {
    if (piece.copied != nullptr) {
      cudaEventSynchronize(piece.copied);
      cudaEventDestroy(piece.copied);
    }
    if (piece.data != nullptr) cudaFreeHost(piece.data);
  }
}

absl::Status Staging::ToDevice(void* to, const void* from, int64_t bytes, cudaStream_t stream) {
  for (int64_t begin = 0; begin < bytes; begin += kPieceBytes) {
    const Piece& piece = pieces_[next_++ % pieces_.size()];
    const int64_t count = std::min(kPieceBytes, bytes - begin);
    absl::Status status = ToStatus(cudaEventSynchronize(piece.copied), "copy to the device");
    if (!status.ok()) return status;
    std::memcpy(piece.data, static_cast<const char*>(from) + begin, count);
    status = ToStatus(cudaMemcpyAsync(static_cast<char*>(to) + begin, piece.data, count,
                                      cudaMemcpyHostToDevice, stream),
                      "copy to the device");
    if (!status.ok()) return status;
    status = ToStatus(cudaEventRecord(piece.copied, stream), "cudaEventRecord");
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Staging::ToHost(void* to, const void* from, int64_t bytes, cudaStream_t stream) {
  for (int64_t begin = 0; begin < bytes; begin += kPieceBytes) {
    const Piece& piece = pieces_[next_++ % pieces_.size()];
    const int64_t count = std::min(kPieceBytes, bytes - begin);
    // In the stream the piece is read, if it still is, before it is written.
    absl::Status status =
        ToStatus(cudaMemcpyAsync(piece.data, static_cast<const char*>(from) + begin, count,
                                 cudaMemcpyDeviceToHost, stream),
                 "copy from the device");
    if (!status.ok()) return status;
    status = ToStatus(cudaStreamSynchronize(stream), "copy from the device");
    if (!status.ok()) return status;
    std::memcpy(static_cast<char*>(to) + begin, piece.data, count);
  }
  return absl::OkStatus();
}

}  // namespace evaserve
