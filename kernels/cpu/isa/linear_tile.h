#pragma once

#include <cstdint>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/isa/matmul.h"

namespace evaserve {
namespace {

// Lanes [first, end) of vector n, which holds the columns from `column` on.
template <int kRows, int kVecs>
EVASERVE_INLINE void StoreColumns(const LinearTile& args, int row, int n, int column, int first,
                                  int end, const Accumulators<kRows, kVecs>& acc) {
  float* y = args.y + row * args.y_stride + column - args.out_begin;
  const float* bias = args.bias == nullptr ? nullptr : args.bias + column - args.out_begin;
  if (end - first == kLanes) {
    const Vec offset = bias == nullptr ? Vec{} : Load(bias);
    for (int r = 0; r < kRows; ++r) {
      const Vec sum = bias == nullptr ? acc.at[r][n] : acc.at[r][n] + offset;
      float* to = y + r * args.y_stride;
      Store(to, args.accumulate ? Load(to) + sum : sum);
    }
    return;
  }
  for (int r = 0; r < kRows; ++r) {
    float* to = y + r * args.y_stride;
    for (int i = first; i < end; ++i) {
      const float sum = bias == nullptr ? acc.at[r][n][i] : acc.at[r][n][i] + bias[i];
      to[i] = args.accumulate ? to[i] + sum : sum;
    }
  }
}

// Columns [begin, begin + kVecs * kLanes) of the block; those of [out_begin, out_end) are kept.
template <bool kBf16, int kRows, int kVecs>
EVASERVE_INLINE void LinearColumns(const LinearTile& args, int row, int begin) {
  const char* x = static_cast<const char*>(args.x) + row * args.x_stride * kUnitBytes;
  const char* weight = static_cast<const char*>(args.weight) + begin * kUnitBytes;
  Accumulators<kRows, kVecs> acc;
  for (int r = 0; r < kRows; ++r) {
    for (int n = 0; n < kVecs; ++n) acc.at[r][n] = Vec{};
  }
  MultiplyPanel<kBf16>(x, args.x_stride * kUnitBytes, weight, kTileColumns * kUnitBytes,
                       args.num_units, acc);

  for (int n = 0; n < kVecs; ++n) {
    const int column = begin + n * kLanes;
    const int first = column < args.out_begin ? args.out_begin - column : 0;
    const int end = args.out_end - column < kLanes ? args.out_end - column : kLanes;
    if (first < end) StoreColumns<kRows, kVecs>(args, row, n, column, first, end, acc);
  }
}

template <bool kBf16, int kRows>
__attribute__((noinline)) void LinearRows(const LinearTile& args, int row) {
  for (int begin = args.out_begin / kTileWidth * kTileWidth; begin < args.out_end;
       begin += kTileWidth) {
    LinearColumns<kBf16, kRows, kTileVecs>(args, row, begin);
  }
}

template <bool kBf16>
EVASERVE_INLINE void LinearBlock(const LinearTile& args) {
  for (int row = 0; row < args.num_rows; row += kTileRows) {
    const int rows = args.num_rows - row < kTileRows ? args.num_rows - row : kTileRows;
    DispatchRows(rows, [&](auto r) { LinearRows<kBf16, decltype(r)::value>(args, row); });
  }
}

void Linear(const LinearTile& args) {
  args.is_bfloat16 ? LinearBlock<true>(args) : LinearBlock<false>(args);
}

}  // namespace
}  // namespace evaserve
