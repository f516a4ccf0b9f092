#include "kernels/linear.h"

#include <cstdlib>
#include <cstring>
#include <new>

namespace evaserve {

void PackedWeight::Free::operator()(void* p) const { std::free(p); }

int64_t PackedWeight::index(int64_t out, int64_t in) const {
  const int64_t pack = 4 / SizeOf(dtype_);
  const int64_t padded_in = (in_features_ + pack - 1) / pack * pack;
  const int64_t block = out / kLinearBlock * kLinearBlock * padded_in;
  return block + (in / pack * kLinearBlock + out % kLinearBlock) * pack + in % pack;
}

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
  if (weight.data_ == nullptr) throw std::bad_alloc();
  std::memset(weight.data_.get(), 0, weight.bytes_);

  int64_t out = 0;
  for (const WeightView& part : parts) {
    for (int64_t row = 0; row < part.out_features; ++row, ++out) {
      for (int64_t k = 0; k < part.in_features; ++k) {
        StoreElement(weight.data_.get(), dtype, weight.index(out, k),
                     LoadElement(part.data, part.dtype, row * part.in_features + k));
      }
    }
  }
  return weight;
}

}  // namespace evaserve
