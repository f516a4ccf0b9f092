#include "models/evabyte/cuda_weights.h"

#include <algorithm>
#include <span>

namespace evaserve {
namespace {

// Bytes of a matrix that are converted at a time, so that a large one needs no second copy of
// itself on the host.
constexpr int64_t kPieceElements = int64_t{4} << 20;

void ToBFloat16(const WeightView& view, int64_t begin, int64_t count, uint16_t* to) {
  if (view.dtype == DType::kBFloat16) {
    std::copy_n(static_cast<const uint16_t*>(view.data) + begin, count, to);
    return;
  }
  const auto* from = static_cast<const float*>(view.data) + begin;
  std::transform(from, from + count, to, HalfFromFloat<HalfType::kBFloat16>);
}

// Uploads tensors one after another and keeps the first error.
class Uploader {
 public:
  explicit Uploader(Gpu& gpu) : gpu_(gpu) {}

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
    GpuMemory memory = Allocate(elements * int64_t{sizeof(uint16_t)});
    auto* to = memory.as<uint16_t>();
    std::vector<uint16_t> piece;
    for (const WeightView& part : parts) {
      const int64_t size = part.out_features * part.in_features;
      for (int64_t begin = 0; begin < size && status_.ok(); begin += kPieceElements) {
        piece.resize(std::min(kPieceElements, size - begin));
        ToBFloat16(part, begin, std::ssize(piece), piece.data());
        Copy(to + begin, piece.data(), std::ssize(piece) * int64_t{sizeof(uint16_t)});
      }
      to += size;
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

  Gpu& gpu_;
  absl::Status status_;
  int64_t bytes_ = 0;
};

}  // namespace

absl::StatusOr<EvaByteCudaWeights> UploadEvaByteWeights(const EvaByteTensors& tensors, Gpu& gpu) {
  Uploader uploader(gpu);
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
