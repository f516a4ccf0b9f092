#pragma once

// One head of some windows of one item: softmax attention over the keys of the window and all
// landmarks (window_columns.h). A tile of rows goes through all columns: logits, which start from
// the bias; weights; then weights times values.

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/isa/attend_rows.h"
#include "kernels/cpu/isa/matmul.h"
#include "kernels/cpu/isa/vector.h"
#include "kernels/cpu/isa/window_columns.h"

namespace evaserve {
namespace {

// Some queries of a window that share a tile.
struct WindowTile {
  int place[kTileRows];  // in the window: the row of the bias
  int64_t token[kTileRows];
  bool is_masked = false;
};

template <bool kBf16, int kRows>
EVASERVE_INLINE void LoadQueries(const WindowAttend& args, const WindowScratch& s,
                                 const WindowTile& t) {
  const Vec scale = Broadcast(args.scale * kLog2E);
  for (int r = 0; r < kRows; ++r) {
    const float* q = args.q + t.token[r] * args.q_stride;
    float* to = reinterpret_cast<float*>(s.q) + r * s.units;
    for (int u = 0; u < s.units; u += kLanes) {
      StorePartial(to + u, LoadUnits<kBf16>(q, u, args.head_dim, scale), s.units - u);
    }
  }
}

// Hides the keys and landmarks that the queries of a causal sequence do not see yet.
template <int kRows, int kVecs>
EVASERVE_INLINE void HideLater(const WindowAttend& args, const WindowTile& t, int begin,
                               Accumulators<kRows, kVecs>& logits) {
  for (int r = 0; r < kRows; ++r) {
    const int keys = args.num_keys - args.num_queries + t.place[r] + 1;
    const int landmarks = (args.first_position + t.place[r]) / args.chunk;
    for (int n = 0; n < kVecs; ++n) {
      const VecInt column = Iota() + (begin + n * kLanes);
      const VecInt is_later = (VecInt)((column >= keys) & ((column < args.num_keys) |
                                                           (column >= args.num_keys + landmarks)));
      logits.at[r][n] = Select(is_later, Broadcast(kHidden), logits.at[r][n]);
    }
  }
}

// Logits of the columns from `begin` on; their maxima go into top, lane by lane.
template <bool kBf16, int kRows, int kVecs>
EVASERVE_INLINE void ScoreWindow(const WindowAttend& args, const WindowScratch& s,
                                 const WindowTile& t, int begin, Vec (&top)[kRows]) {
  Accumulators<kRows, kVecs> acc;
  for (int r = 0; r < kRows; ++r) {
    const float* bias = s.bias + int64_t{t.place[r]} * s.bias_columns;
    for (int n = 0; n < kVecs; ++n) {
      const int column = begin + n * kLanes;
      acc.at[r][n] = Load((column < s.bias_columns ? bias : s.no_bias) + column);
    }
  }
  if (t.is_masked) {
    for (int n = 0; n < kVecs; ++n) {
      const Vec mask = Load(s.mask + begin + n * kLanes);
      for (int r = 0; r < kRows; ++r) acc.at[r][n] = acc.at[r][n] + mask;
    }
  }
  const float* keys = s.keys + int64_t{begin} * s.units;
  MultiplyPanel<kBf16>(s.q, int64_t{s.units} * kUnitBytes, reinterpret_cast<const char*>(keys),
                       kTileWidth * kUnitBytes, s.units, acc);
  if (args.chunk > 0) HideLater(args, t, begin, acc);
  for (int r = 0; r < kRows; ++r) {
    for (int n = 0; n < kVecs; ++n) {
      top[r] = Max(top[r], acc.at[r][n]);
      Store(s.logits + r * s.columns + begin + n * kLanes, acc.at[r][n]);
    }
  }
}

// Turns the logits of row r into weights; returns their sum.
template <bool kBf16>
EVASERVE_INLINE float WeighWindow(const WindowScratch& s, int r, float max) {
  float* row = s.logits + r * s.columns;
  const Vec m = Broadcast(max);
  Vec total = {};
  if constexpr (kBf16) {
    char* weights = reinterpret_cast<char*>(row);
    for (int j = 0; j < s.columns; j += 2 * kLanes) {
      const Vec a = Exp2<true>(Load(row + j) - m);
      const Vec b = j + kLanes < s.columns ? Exp2<true>(Load(row + j + kLanes) - m) : Vec{};
      const Vec pairs = ToBFloat16(a, b);
      // The sum is of the rounded weights: then they sum to 1 exactly.
      total = DotPairs(pairs, (Vec)BroadcastInt(0x3f803f80), total);
      Store(weights + j * 2, pairs);
    }
  } else {
    for (int j = 0; j < s.columns; j += kLanes) {
      const Vec a = Exp2<false>(Load(row + j) - m);
      total = total + a;
      Store(row + j, a);
    }
  }
  return ReduceAdd(total);
}

template <bool kBf16, int kRows>
EVASERVE_INLINE void WeightedValues(const WindowAttend& args, const WindowScratch& s,
                                    const WindowTile& t, const float (&sum)[kRows]) {
  const int used = args.num_keys + args.num_landmarks;
  const int num_units = kBf16 ? (used + 1) / 2 : used;
  for (int begin = 0; begin < s.padded_dim; begin += kTileWidth) {
    DispatchVecs(
        s.padded_dim - begin, [&](auto vecs) __attribute__((always_inline)) {
          constexpr int kVecs = decltype(vecs)::value;
          Accumulators<kRows, kVecs> acc;
          for (int r = 0; r < kRows; ++r) {
            for (int n = 0; n < kVecs; ++n) acc.at[r][n] = Vec{};
          }
          MultiplyPanel<kBf16>(reinterpret_cast<const char*>(s.logits),
                               int64_t{s.columns} * kUnitBytes,
                               reinterpret_cast<const char*>(s.values) + begin * kUnitBytes,
                               int64_t{s.padded_dim} * kUnitBytes, num_units, acc);
          for (int r = 0; r < kRows; ++r) {
            const Vec inverse = Broadcast(1.f / sum[r]);
            float* out = args.out + t.token[r] * args.out_stride;
            for (int n = 0; n < kVecs; ++n) {
              const int d = begin + n * kLanes;
              if (d < args.head_dim) {
                StorePartial(out + d, acc.at[r][n] * inverse, args.head_dim - d);
              }
            }
          }
        });
  }
}

template <bool kBf16, int kRows>
__attribute__((noinline)) void RunWindowTile(const WindowAttend& args, const WindowScratch& s,
                                             const WindowTile& t) {
  LoadQueries<kBf16, kRows>(args, s, t);
  Vec top[kRows];
  for (int r = 0; r < kRows; ++r) top[r] = Broadcast(kHidden);
  for (int begin = 0; begin < s.columns; begin += kTileWidth) {
    DispatchVecs(
        s.columns - begin, [&](auto vecs) __attribute__((always_inline)) {
          ScoreWindow<kBf16, kRows, decltype(vecs)::value>(args, s, t, begin, top);
        });
  }
  float sum[kRows];
  for (int r = 0; r < kRows; ++r) {
    const float max = ReduceMax(top[r]);
    sum[r] = WeighWindow<kBf16>(s, r, max);
    if (args.lse != nullptr) {
      args.lse[t.token[r] * args.lse_stride] = max * kLn2 + __builtin_logf(sum[r]);
    }
  }
  WeightedValues<kBf16, kRows>(args, s, t, sum);
}

template <bool kBf16>
void AttendWindow(const WindowAttend& args, const WindowScratch& s, const int32_t* queries,
                  bool is_masked) {
  int left = 0;
  for (int i = 0; i < args.num_queries; ++i) left += queries[i] >= 0;
  int place = 0;
  while (left > 0) {
    // Tiles of about one height: a lone last row would cost as much as several.
    const int num_tiles = (left + kTileRows - 1) / kTileRows;
    const int rows = (left + num_tiles - 1) / num_tiles;
    WindowTile t;
    t.is_masked = is_masked;
    for (int r = 0; r < rows; ++place) {
      if (queries[place] < 0) continue;
      t.place[r] = place;
      t.token[r++] = queries[place];
    }
    DispatchRows(rows, [&](auto r) { RunWindowTile<kBf16, decltype(r)::value>(args, s, t); });
    left -= rows;
  }
}

template <bool kBf16>
void AttendWindows(const WindowAttend& args, const WindowScratch& s) {
  PrepareLandmarks<kBf16>(args, s);
  for (int w = 0; w < args.num_windows; ++w) {
    const bool is_masked = PrepareWindow<kBf16>(args, s, args.keys + int64_t{w} * args.num_keys);
    AttendWindow<kBf16>(args, s, args.queries + int64_t{w} * args.num_queries, is_masked);
  }
}

size_t WindowAttendScratchBytes(const WindowAttend& args) {
  WindowScratch s;
  return LayOut(args, nullptr, s);
}

void AttendWindows(const WindowAttend& args, void* scratch) {
  WindowScratch s;
  LayOut(args, static_cast<char*>(scratch), s);
  args.is_bfloat16 ? AttendWindows<true>(args, s) : AttendWindows<false>(args, s);
}

}  // namespace
}  // namespace evaserve
