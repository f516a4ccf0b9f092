#include "models/evabyte/cuda_weights.h"

#include <algorithm>
#include <cstring>
#include <span>

namespace evaserve {
namespace {

// Bytes of a matrix that are converted at a time, so that a large one needs no second copy of
// itself on the host.
constexpr int64_t kPieceElements = int64_t{4} << 20;

void Convert(const WeightView& view, int64_t begin, int64_t count, DType dtype, void* to) {
  if (view.dtype == dtype) {
    const auto* const from = static_cast<const char*>(view.data);
    std::memcpy(to, from + begin * SizeOf(dtype), count * SizeOf(dtype));
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    StoreElement(to, dtype, i, LoadElement(view.data, view.dtype, begin + i));
  }
}

// Uploads tensors one after another and keeps the first error.
class Uploader {
 public:
  // Matrices are converted to `dtype`.
  Uploader(DType dtype, Gpu& gpu) : dtype_(dtype), gpu_(gpu) {}

  const absl::Status& status() const { return status_; }
  int64_t bytes() const { return bytes_; }

  GpuMemory Vector(std::span<const float> values) {
    GpuMemory memory = Allocate(static_cast<int64_t>(values.size_bytes()));
    Copy(memory.as<char>(), values.data(), static_cast<int64_t>(values.size_bytes()));
    return memory;
  }

  GpuMemory Matrix(const StackedMatrix& parts) {
    int64_t elements = 0;
    for (const WeightView& part : parts) elements += part.out_features * part.in_features;
    const int64_t element_bytes = SizeOf(dtype_);
    GpuMemory memory = Allocate(elements * element_bytes);
    auto* to = memory.as<char>();
    std::vector<char> piece;
    for (const WeightView& part : parts) {
      const int64_t size = part.out_features * part.in_features;
      for (int64_t begin = 0; begin < size && status_.ok(); begin += kPieceElements) {
        const int64_t count = std::min(kPieceElements, size - begin);
        piece.resize(count * element_bytes);
        Convert(part, begin, count, dtype_, piece.data());
        Copy(to + begin * element_bytes, piece.data(), std::ssize(piece));
      }
      to += size * element_bytes;
    }
    return memory;
  }

 private:
  GpuMemory Allocate(int64_t bytes) {
    if (!status_.ok()) return {};
    absl::StatusOr<GpuMemory> memory = gpu_.Allocate(bytes);
    if (!memory.ok()) {
      status_ = memory.status();
      return {};
    }
    bytes_ += bytes;
    return *std::move(memory);
  }
  void Copy(void* to, const void* from, int64_t bytes) {
    if (status_.ok()) status_ = gpu_.ToDevice(to, from, bytes);
  }

  const DType dtype_;
  Gpu& gpu_;
  absl::Status status_;
  int64_t bytes_ = 0;
};

}  // namespace

absl::StatusOr<EvaByteCudaWeights> UploadEvaByteWeights(const EvaByteTensors& tensors, DType dtype,
                                                        Gpu& gpu) {
  Uploader uploader(dtype, gpu);
  EvaByteCudaWeights weights;
  weights.embedding = uploader.Vector(tensors.embedding);
  for (const EvaByteLayerTensors& layer : tensors.layers) {
    weights.layers.push_back({.attention_norm = uploader.Vector(layer.attention_norm),
                              .mlp_norm = uploader.Vector(layer.mlp_norm),
                              .mu = uploader.Vector(layer.mu),
                              .phi = uploader.Vector(layer.phi),
                              .qkv = uploader.Matrix(layer.qkv),
                              .out = uploader.Matrix(layer.out),
                              .gate_up = uploader.Matrix(layer.gate_up),
                              .down = uploader.Matrix(layer.down)});
    if (!uploader.status().ok()) return uploader.status();
  }
  weights.final_norm = uploader.Vector(tensors.final_norm);
  weights.lm_head = uploader.Matrix(tensors.lm_head);
  if (!uploader.status().ok()) return uploader.status();
  weights.num_parameters = tensors.num_parameters;
  weights.bytes = uploader.bytes();
  return weights;
}

}  // namespace evaserve
