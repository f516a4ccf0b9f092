#include "kernels/linear.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "kernels/give_way.h"

namespace evaserve {
namespace {

// Elements of a row that are stored next to each other: one float32 or two bfloat16.
constexpr int64_t kUnitBytes = 4;

// Of a row, read at a time: so few that those of all rows of a block, which are interleaved, stay
// in the L1 cache.
constexpr int64_t kTileUnits = 64;

// A row of one of the matrices that are stacked. No matrix: padding.
struct Row {
  const WeightView* matrix = nullptr;
  int64_t index = 0;
};

// Elements of a matrix, as `dtype`. With both types known its loop is vectorized.
template <DType from, DType dtype>
void Convert(const void* matrix, int64_t first, int64_t count, void* to) {
  for (int64_t i = 0; i < count; ++i) {
    StoreElement(to, dtype, i, LoadElement(matrix, from, first + i));
  }
}

template <DType from>
void ConvertFrom(const void* matrix, int64_t first, int64_t count, DType dtype, void* to) {
  switch (dtype) {
    case DType::kFloat32:
      return Convert<from, DType::kFloat32>(matrix, first, count, to);
    case DType::kBFloat16:
      return Convert<from, DType::kBFloat16>(matrix, first, count, to);
    case DType::kFloat16:
      return Convert<from, DType::kFloat16>(matrix, first, count, to);
  }
}

void ReadElements(const WeightView& matrix, int64_t first, int64_t count, DType dtype, void* to) {
  if (matrix.dtype == dtype) {
    const auto* const bytes = static_cast<const std::byte*>(matrix.data);
    std::memcpy(to, bytes + first * SizeOf(dtype), count * SizeOf(dtype));
    return;
  }
  switch (matrix.dtype) {
    case DType::kFloat32:
      return ConvertFrom<DType::kFloat32>(matrix.data, first, count, dtype, to);
    case DType::kBFloat16:
      return ConvertFrom<DType::kBFloat16>(matrix.data, first, count, dtype, to);
    case DType::kFloat16:
      return ConvertFrom<DType::kFloat16>(matrix.data, first, count, dtype, to);
  }
}

// Writes the units [begin, end) of a row, a block's rows apart.
void PackUnits(const Row& row, DType dtype, int64_t begin, int64_t end, std::byte* to) {
  alignas(kUnitBytes) std::byte units[kTileUnits * kUnitBytes] = {};
  if (row.matrix != nullptr) {
    const int64_t pack = kUnitBytes / SizeOf(dtype), row_size = row.matrix->in_features;
    const int64_t count = std::min(end * pack, row_size) - begin * pack;
    ReadElements(*row.matrix, row.index * row_size + begin * pack, count, dtype, units);
  }
  for (int64_t i = 0; i < end - begin; ++i) {
    std::memcpy(to + i * kLinearBlock * kUnitBytes, units + i * kUnitBytes, kUnitBytes);
  }
}

void PackBlock(std::span<const Row> rows, DType dtype, int64_t num_units, std::byte* to) {
  for (int64_t begin = 0; begin < num_units; begin += kTileUnits) {
    const int64_t end = std::min(begin + kTileUnits, num_units);
    for (int64_t i = 0; i < kLinearBlock; ++i) {
      PackUnits(i < std::ssize(rows) ? rows[i] : Row(), dtype, begin, end,
                to + (begin * kLinearBlock + i) * kUnitBytes);
    }
    GiveWay();
  }
}

}  // namespace

int64_t PackedWeight::index(int64_t out, int64_t in) const {
  const int64_t pack = kUnitBytes / SizeOf(dtype_);
  const int64_t padded_in = (in_features_ + pack - 1) / pack * pack;
  const int64_t block = out / kLinearBlock * kLinearBlock * padded_in;
  return block + (in / pack * kLinearBlock + out % kLinearBlock) * pack + in % pack;
}

PackedWeight PackedWeight::Pack(std::span<const WeightView> parts, DType dtype) {
  PackedWeight weight;
  weight.dtype_ = dtype;
  std::vector<Row> rows;
  for (const WeightView& part : parts) {
    weight.in_features_ = part.in_features;
    weight.out_features_ += part.out_features;
    for (int64_t row = 0; row < part.out_features; ++row) rows.push_back({&part, row});
  }
  const int64_t pack = kUnitBytes / SizeOf(dtype);
  const int64_t blocks = (weight.out_features_ + kLinearBlock - 1) / kLinearBlock;
  const int64_t units = (weight.in_features_ + pack - 1) / pack;
  weight.bytes_ = blocks * units * kLinearBlock * kUnitBytes;
  weight.data_ = AllocateAligned(weight.bytes_);

  auto* const packed = static_cast<std::byte*>(weight.data_.get());
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t first = block * kLinearBlock;
    const int64_t count = std::min<int64_t>(kLinearBlock, weight.out_features_ - first);
    PackBlock(std::span(rows).subspan(first, count), dtype, units,
              packed + first * units * kUnitBytes);
  }
  return weight;
}

}  // namespace evaserve
