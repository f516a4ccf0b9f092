#pragma once

#include <cstdint>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/isa/matmul.h"

namespace evaserve {
namespace {

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

  for (int r = 0; r < kRows; ++r) {
    float* y = args.y + (row + r) * args.y_stride - args.out_begin;
    for (int n = 0; n < kVecs; ++n) {
      const int column = begin + n * kLanes;
      if (column >= args.out_begin && column + kLanes <= args.out_end) {
        Store(y + column, args.accumulate ? Load(y + column) + acc.at[r][n] : acc.at[r][n]);
        continue;
      }
      for (int i = 0; i < kLanes; ++i) {
        if (column + i < args.out_begin || column + i >= args.out_end) continue;
        y[column + i] = args.accumulate ? y[column + i] + acc.at[r][n][i] : acc.at[r][n][i];
      }
    }
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
