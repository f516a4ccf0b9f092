#include "kernels/linear.h"

#include <cstdlib>
#include <cstring>

namespace evaserve {
namespace {

// Writes row `out` of the stacked matrix into its column of the packed blocks.
void PackRow(const WeightView& view, int64_t row, int64_t out, DType dtype, void* packed) {
  const int64_t pack = 4 / SizeOf(dtype);
  const int64_t padded_in = (view.in_features + pack - 1) / pack * pack;
  const int64_t begin = out / kLinearBlock * kLinearBlock * padded_in;
  for (int64_t k = 0; k < view.in_features; ++k) {
    const int64_t index = begin + (k / pack * kLinearBlock + out % kLinearBlock) * pack + k % pack;
    StoreElement(packed, dtype, index,
                 LoadElement(view.data, view.dtype, row * view.in_features + k));
  }
}

}  // namespace

void PackedWeight::Free::operator()(void* p) const { std::free(p); }

PackedWeight PackedWeight::Pack(std::span<const WeightView> parts, DType dtype) {
  PackedWeight weight;
  weight.dtype_ = dtype;
  for (const WeightView& part : parts) {
    weight.in_features_ = part.in_features;
    weight.out_features_ += part.out_features;
  }
  const int64_t pack = 4 / SizeOf(dtype);
  const int64_t blocks = (weight.out_features_ + kLinearBlock - 1) / kLinearBlock;
  const int64_t units = (weight.in_features_ + pack - 1) / pack;
  weight.bytes_ = blocks * units * kLinearBlock * 4;
  weight.data_.reset(std::aligned_alloc(64, weight.bytes_));
  std::memset(weight.data_.get(), 0, weight.bytes_);

  int64_t out = 0;
  for (const WeightView& part : parts) {
    for (int64_t row = 0; row < part.out_features; ++row) {
      PackRow(part, row, out++, dtype, weight.data_.get());
    }
  }
  return weight;
}

}  // namespace evaserve
