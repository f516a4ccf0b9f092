#pragma once

// The right operands of the windows of one head of one item.
//
// Keys and landmarks become one matrix, in columns [keys | landmarks | padding] that are cut into
// panels as wide as a register tile, and values likewise in rows. The landmarks' part is made once,
// the keys' for each window. What has no weight (outside of the tokens, padding) has zeros as key
// and value and -1e30 as bias.

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/isa/attend_rows.h"
#include "kernels/cpu/isa/matmul.h"
#include "kernels/cpu/isa/slots.h"
#include "kernels/cpu/isa/vector.h"

namespace evaserve {
namespace {

struct WindowScratch {
  int columns = 0;  // num_keys + num_landmarks, rounded up to whole vectors
  int units = 0;    // of head_dim
  int padded_dim = 0;
  float* keys;           // [columns / kTileWidth, units, kTileWidth] units
  std::byte* values;     // [columns / pack, padded_dim] units
  int bias_columns = 0;  // those of keys, rounded up to whole vectors; 0 without a bias
  float* bias;           // [num_queries, bias_columns], times log2(e)
  float* no_bias;        // [columns]: of columns behind these; hides what is behind the landmarks
  float* mask;           // [columns]: what a window adds to every row of the bias
  float* zero;           // [padded_dim]
  char* q;               // [kTileRows, units] units, times scale * log2(e)
  float* logits;         // [kTileRows, columns], then weights in their place
};

// Columns that hold keys, rounded up: what the window's keys share with landmarks is packed with
// them.
inline int KeyColumns(const WindowAttend& args) {
  return (args.num_keys + kLanes - 1) / kLanes * kLanes;
}

inline size_t LayOut(const WindowAttend& args, char* base, WindowScratch& s) {
  size_t used = 0;
  const auto take = [&](int64_t units) {
    char* begin = base + used;
    used += (units * kUnitBytes + 63) / 64 * 64;
    return begin;
  };
  const int64_t columns = (args.num_keys + args.num_landmarks + kLanes - 1) / kLanes * kLanes;
  s.columns = static_cast<int>(columns);
  s.units = args.is_bfloat16 ? args.head_dim / 2 : args.head_dim;
  s.padded_dim = (args.head_dim + 15) / 16 * 16;
  const int64_t num_tiles = (columns + kTileWidth - 1) / kTileWidth;
  s.keys = reinterpret_cast<float*>(take(num_tiles * s.units * kTileWidth));
  s.values = reinterpret_cast<std::byte*>(take(columns * s.padded_dim));
  s.bias_columns = args.bias == nullptr ? 0 : KeyColumns(args);
  s.bias = reinterpret_cast<float*>(take(int64_t{args.num_queries} * s.bias_columns));
  s.no_bias = reinterpret_cast<float*>(take(columns));
  s.mask = reinterpret_cast<float*>(take(columns));
  s.zero = reinterpret_cast<float*>(take(s.padded_dim));
  s.q = take(kTileRows * s.units);
  // Weights of bfloat16 are stored two vectors at once.
  s.logits = reinterpret_cast<float*>(take(kTileRows * columns + kLanes));
  return used;
}

// kLanes units of a row from unit u on; zeros beyond its end.
template <bool kBf16>
EVASERVE_INLINE Vec LoadUnits(const float* row, int u, int head_dim, Vec scale) {
  if constexpr (kBf16) {
    const int left = head_dim - 2 * u;
    const Vec a = LoadPartial(row + 2 * u, left) * scale;
    const Vec b = left > kLanes ? LoadPartial(row + 2 * u + kLanes, left - kLanes) * scale : Vec{};
    return ToBFloat16(a, b);
  } else {
    return LoadPartial(row + u, head_dim - u) * scale;
  }
}

// Columns [begin, end) of s.keys, whole vectors, of which column c is row(c).
template <bool kBf16, typename RowFn>
EVASERVE_INLINE void PackKeys(const WindowAttend& args, const WindowScratch& s, int begin, int end,
                              RowFn&& row) {
  const Vec one = Broadcast(1.f);
  for (int column = begin; column < end; column += kLanes) {
    const float* rows[kLanes];
    for (int i = 0; i < kLanes; ++i) rows[i] = row(column + i);
    float* to = s.keys + int64_t{column / kTileWidth} * s.units * kTileWidth + column % kTileWidth;
    for (int u = 0; u < s.units; u += kLanes) {
      Vec v[kLanes];
      for (int i = 0; i < kLanes; ++i) v[i] = LoadUnits<kBf16>(rows[i], u, args.head_dim, one);
      Transpose(v);
      const int rest = s.units - u < kLanes ? s.units - u : kLanes;
      for (int i = 0; i < rest; ++i) Store(to + int64_t{u + i} * kTileWidth, v[i]);
    }
  }
}

// Rows [0, count), row(i) each, as rows of s.values from `column` on.
template <bool kBf16, typename RowFn>
EVASERVE_INLINE void PackValues(const WindowAttend& args, const WindowScratch& s, int column,
                                int count, RowFn&& row) {
  for (int i = 0; i < count; ++i) {
    const int slot = column + i;
    if (kBf16 && slot % 2 == 0 && i + 1 < count) {
      StoreValuePair(row(i), row(i + 1), slot, args.head_dim, s.padded_dim, s.values);
      ++i;
    } else {
      StoreValue<kBf16>(row(i), slot, args.head_dim, s.padded_dim, s.values);
    }
  }
}

// The row of what is behind the keys: a landmark or padding.
EVASERVE_INLINE const float* LandmarkRow(const WindowAttend& args, const WindowScratch& s,
                                         const float* landmarks, int column) {
  const int c = column - args.num_keys;
  return c < args.num_landmarks ? landmarks + int64_t{c} * args.head_dim : s.zero;
}

// What all windows share: the landmarks and the bias.
template <bool kBf16>
void PrepareLandmarks(const WindowAttend& args, const WindowScratch& s) {
  for (int d = 0; d < s.padded_dim; ++d) s.zero[d] = 0.f;
  const int used = args.num_keys + args.num_landmarks;
  const auto k_bar = [&](int column) { return LandmarkRow(args, s, args.k_bar, column); };
  const auto beta = [&](int c) { return args.beta + int64_t{c} * args.head_dim; };
  PackKeys<kBf16>(args, s, KeyColumns(args), s.columns, k_bar);
  // The other half of the last pair of an odd number.
  if (kBf16) StoreValue<kBf16>(s.zero, used | 1, args.head_dim, s.padded_dim, s.values);
  PackValues<kBf16>(args, s, args.num_keys, args.num_landmarks, beta);

  for (int j = 0; j < s.columns; ++j) s.no_bias[j] = j < used ? 0.f : kHidden;
  if (args.bias == nullptr) return;
  for (int i = 0; i < args.num_queries; ++i) {
    // A step of a causal sequence has one query of many places.
    if (args.num_windows == 1 && args.queries[i] < 0) continue;
    float* to = s.bias + int64_t{i} * s.bias_columns;
    const float* from = args.bias + int64_t{i} * args.num_keys;
    for (int j = 0; j < args.num_keys; ++j) to[j] = from[j] * kLog2E;
    for (int j = args.num_keys; j < s.bias_columns; ++j) to[j] = s.no_bias[j];
  }
}

// The keys and values of one window. True if some are outside of the tokens.
template <bool kBf16>
bool PrepareWindow(const WindowAttend& args, const WindowScratch& s, const int32_t* keys) {
  const auto k = [&](int column) {
    if (column >= args.num_keys) return LandmarkRow(args, s, args.k_bar, column);
    return keys[column] < 0 ? s.zero : args.k + keys[column] * args.kv_stride;
  };
  const auto v = [&](int j) { return keys[j] < 0 ? s.zero : args.v + keys[j] * args.kv_stride; };
  PackKeys<kBf16>(args, s, 0, KeyColumns(args), k);
  PackValues<kBf16>(args, s, 0, args.num_keys, v);
  bool is_masked = false;
  for (int j = 0; j < args.num_keys; ++j) is_masked = is_masked || keys[j] < 0;
  if (is_masked) {
    for (int j = 0; j < s.columns; ++j) {
      s.mask[j] = j < args.num_keys && keys[j] < 0 ? kHidden : 0.f;
    }
  }
  return is_masked;
}

}  // namespace
}  // namespace evaserve
