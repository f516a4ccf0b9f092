#pragma once

// The one register tile that all matrix products of this library are made of: linear layers,
// queries times keys, weights times values.
//
// Operands are in units of 4 bytes: a float32 or a pair of bfloat16 along the summed dimension. The
// left one is [rows, units]; the right one is made of panels [units, columns], each contiguous.
// Every element of the result is one chain of sums in the order of the units, whatever the tile.

#include <cstdint>

#include "kernels/cpu/isa/vector.h"

namespace evaserve {
namespace {

constexpr int kUnitBytes = 4;
constexpr int kCacheLineBytes = 64;
constexpr int kTileWidth = kTileVecs * kLanes;

struct Panel {
  const char* data = nullptr;
  int num_units = 0;
};

template <int kRows, int kVecs>
struct Accumulators {
  Vec at[kRows][kVecs];
};

// acc += a b, for at least one unit. A lone row waits for memory: meanwhile the same rows of the
// panel at `ahead`, if not null, are fetched into the second-level cache.
template <bool kBf16, int kRows, int kVecs>
EVASERVE_INLINE void MultiplyPanel(const char* a, int64_t a_stride_bytes, const char* b,
                                   int64_t b_stride_bytes, int num_units,
                                   Accumulators<kRows, kVecs>& acc, const char* ahead = nullptr) {
  int k = 0;
  // A loop that might not run would make GCC store the sums before it: 110 cycles a panel.
  do {
    Vec row[kVecs];
    for (int n = 0; n < kVecs; ++n) row[n] = Load(b + k * b_stride_bytes + n * kVecBytes);
    if (kRows == 1 && ahead != nullptr) {
      for (int i = 0; i < kVecs * kVecBytes; i += kCacheLineBytes) {
        __builtin_prefetch(ahead + k * b_stride_bytes + i, /*write=*/0, /*locality=*/2);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      const Vec element = BroadcastUnit(a + r * a_stride_bytes + k * kUnitBytes);
      for (int n = 0; n < kVecs; ++n) {
        acc.at[r][n] = MulAdd<kBf16>(element, row[n], acc.at[r][n]);
      }
    }
  } while (++k < num_units);
}

template <int n>
struct Int {
  static constexpr int value = n;
};

// Calls fn(Int<rows>{}), 1 <= rows <= kTileRows.
template <typename Fn>
EVASERVE_INLINE void DispatchRows(int rows, Fn&& fn) {
  static_assert(kTileRows == 6);
  switch (rows) {
    case 1:
      return fn(Int<1>{});
    case 2:
      return fn(Int<2>{});
    case 3:
      return fn(Int<3>{});
    case 4:
      return fn(Int<4>{});
    case 5:
      return fn(Int<5>{});
    default:
      return fn(Int<6>{});
  }
}

// Calls fn(Int<n>{}) with the number of vectors that `columns` columns need, at most kTileVecs.
template <typename Fn>
EVASERVE_INLINE void DispatchVecs(int columns, Fn&& fn) {
  if (columns > 3 * kLanes && kTileVecs == 4) return fn(Int<kTileVecs>{});
  if (columns > 2 * kLanes && kTileVecs == 4) return fn(Int<3>{});
  if (columns > kLanes) return fn(Int<2>{});
  return fn(Int<1>{});
}

}  // namespace
}  // namespace evaserve
