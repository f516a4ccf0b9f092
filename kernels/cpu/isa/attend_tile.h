#pragma once

// Attention of some rows of one head over its list of slots: online softmax in base 2, one block of
// kBlockPages pages after the other, first the summaries, then the window.
//
// The blocks lie at fixed slots and each row adds up its slots in their order, so a row's result is
// the same to the bit however many rows share the tile. Slots that a row does not see get the
// weight 0; slots that no row of a tile sees are not touched, since they may hold NaN.

#include <cstdint>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/isa/matmul.h"
#include "kernels/cpu/isa/vector.h"

namespace evaserve {
namespace {

// Chosen on Zen 4 with bench/kernels/attention_bench.
constexpr int kBlockPages = 4;
constexpr int kAttendRows = 96;

constexpr int kBlockSlots = kBlockPages * kTileColumns;
// What a hidden slot's logit is set to, and where the running maximum starts. The order of the two
// makes the weight of a hidden slot 0 even while a row has seen nothing else.
constexpr float kHidden = -1e30f;
constexpr float kMaxBegin = -1e28f;
constexpr float kLog2E = 1.44269504088896341f;
constexpr float kLn2 = 0.693147180559945309f;

struct AttendScratch {
  char* q;        // [rows, q_units] units, times scale * log2(e)
  float* out;     // [rows, padded_head_dim], not yet normalised
  float* max;     // [rows]
  float* sum;     // [rows, kLanes]
  float* logits;  // [kTileRows, kBlockSlots]
  char* weights;  // [kTileRows, kBlockSlots] elements
  char* tail;     // [padded_head_dim] units: the last value row of an odd number of slots
};

inline int64_t QueryUnits(const AttendRows& args) {
  return args.is_bfloat16 ? args.head_dim / 2 : args.head_dim;
}

// Lays the parts out from `base` on and returns the end; a null base measures.
inline size_t LayOut(const AttendRows& args, char* base, AttendScratch& s) {
  size_t used = 0;
  const auto take = [&](int64_t count, int size) {
    char* begin = base + used;
    used += (count * size + 63) / 64 * 64;
    return begin;
  };
  const int64_t rows = args.num_rows;
  s.q = take(rows * QueryUnits(args), kUnitBytes);
  s.out = reinterpret_cast<float*>(take(rows * args.padded_head_dim, 4));
  s.max = reinterpret_cast<float*>(take(rows, 4));
  s.sum = reinterpret_cast<float*>(take(rows * kLanes, 4));
  s.logits = reinterpret_cast<float*>(take(kTileRows * kBlockSlots, 4));
  s.weights = take(kTileRows * kBlockSlots, args.is_bfloat16 ? 2 : 4);
  s.tail = take(args.padded_head_dim, kUnitBytes);
  return used;
}

template <bool kBf16>
void PrepareQueries(const AttendRows& args, const AttendScratch& s) {
  const Vec scale = Broadcast(args.scale * kLog2E);
  for (int r = 0; r < args.num_rows; ++r) {
    const float* q = args.q + r * args.q_stride;
    char* to = s.q + r * QueryUnits(args) * kUnitBytes;
    for (int d = 0; d < args.head_dim; d += kBf16 ? 2 * kLanes : kLanes) {
      const int left = args.head_dim - d;
      const Vec a = LoadPartial(q + d, left) * scale;
      if constexpr (kBf16) {
        const Vec b = left > kLanes ? LoadPartial(q + d + kLanes, left - kLanes) * scale : Vec{};
        StorePartial(reinterpret_cast<float*>(to + d * 2), ToBFloat16(a, b), left / 2);
      } else {
        StorePartial(reinterpret_cast<float*>(to + d * 4), a, left);
      }
    }
  }
}

// Some consecutive slots of a page list, at most kBlockSlots of them.
struct SlotBlock {
  const int32_t* pages = nullptr;
  int num_slots = 0;
  int begin = 0;           // the first one in its list
  bool is_window = false;  // else summaries, which every row sees
};

// How many slots of the block, from its first on, `row` sees at most.
EVASERVE_INLINE int VisibleSlots(const AttendRows& args, const SlotBlock& block, int row) {
  if (!block.is_window || args.tree_mask != nullptr) return block.num_slots;
  const int visible = args.num_visible + row - block.begin;
  return visible < 0 ? 0 : visible < block.num_slots ? visible : block.num_slots;
}

// Hides what `row` does not see among the logits [0, end) of a block.
inline void HideSlots(const AttendRows& args, const SlotBlock& block, int row, int end,
                      float* logits) {
  const int visible = VisibleSlots(args, block, row);
  for (int j = visible / kLanes * kLanes; j < end; j += kLanes) {
    const VecInt shown = (VecInt)(Iota() + j < visible);
    Store(logits + j, Select(shown, Load(logits + j), Broadcast(kHidden)));
  }
  if (!block.is_window || args.tree_mask == nullptr) return;
  for (int j = 0; j < visible; ++j) {
    const int own = block.begin + j - args.own_begin;
    if (own >= 0 && args.tree_mask[int64_t{row} * args.num_own + own] == 0) logits[j] = kHidden;
  }
}

// logits = q . k of one page, for `columns` slots rounded up to vectors; max covers them.
template <bool kBf16, int kRows>
EVASERVE_INLINE void MultiplyKeys(const char* q, int64_t q_units, const char* keys, int columns,
                                  float* logits, Vec (&max)[kRows]) {
  for (int begin = 0; begin < columns; begin += kTileWidth) {
    DispatchVecs(
        columns - begin, [&](auto vecs) __attribute__((always_inline)) {
          constexpr int kVecs = decltype(vecs)::value;
          Accumulators<kRows, kVecs> acc = {};
          MultiplyPanel<kBf16>(q, q_units * kUnitBytes, keys + begin * kUnitBytes,
                               kTileColumns * kUnitBytes, static_cast<int>(q_units), acc);
          for (int r = 0; r < kRows; ++r) {
            for (int n = 0; n < kVecs; ++n) {
              Store(logits + r * kBlockSlots + begin + n * kLanes, acc.at[r][n]);
              max[r] = Max(max[r], acc.at[r][n]);
            }
          }
        });
  }
}

// weights = 2^(logits - max), and their sum.
template <bool kBf16>
EVASERVE_INLINE Vec Exponentiate(const float* logits, int count, float max, char* weights) {
  const Vec m = Broadcast(max);
  Vec sum = {};
  if constexpr (kBf16) {
    for (int j = 0; j < count; j += 2 * kLanes) {
      const Vec a = Exp2<true>(Load(logits + j) - m);
      const Vec b = Exp2<true>(Load(logits + j + kLanes) - m);
      sum += a + b;
      Store(weights + j * 2, ToBFloat16(a, b));
    }
  } else {
    for (int j = 0; j < count; j += kLanes) {
      const Vec a = Exp2<false>(Load(logits + j) - m);
      sum += a;
      Store(weights + j * 4, a);
    }
  }
  return sum;
}

// out = out * correction + weights * values
template <bool kBf16, int kRows>
EVASERVE_INLINE void MultiplyValues(const char* weights, const Panel* panels, int num_panels,
                                    int columns, const float (&correction)[kRows], float* out) {
  constexpr int64_t kWeightStride = kBlockSlots * (kBf16 ? 2 : 4);
  for (int begin = 0; begin < columns; begin += kTileWidth) {
    DispatchVecs(
        columns - begin, [&](auto vecs) __attribute__((always_inline)) {
          constexpr int kVecs = decltype(vecs)::value;
          Accumulators<kRows, kVecs> acc;
          for (int r = 0; r < kRows; ++r) {
            for (int n = 0; n < kVecs; ++n) {
              acc.at[r][n] =
                  Load(out + r * columns + begin + n * kLanes) * Broadcast(correction[r]);
            }
          }
          const char* a = weights;
          for (int i = 0; i < num_panels; ++i) {
            MultiplyPanel<kBf16>(a, kWeightStride, panels[i].data + begin * kUnitBytes,
                                 int64_t{columns} * kUnitBytes, panels[i].num_units, acc);
            a += panels[i].num_units * kUnitBytes;
          }
          for (int r = 0; r < kRows; ++r) {
            for (int n = 0; n < kVecs; ++n) {
              Store(out + r * columns + begin + n * kLanes, acc.at[r][n]);
            }
          }
        });
  }
}

// The values of `count` slots of a block as panels. An odd last slot of bfloat16 shares its unit
// with one that may never have been written: it is copied without it.
template <bool kBf16>
EVASERVE_INLINE int ValuePanels(const AttendRows& args, const SlotBlock& block, int count,
                                char* tail, Panel* panels) {
  int num_panels = 0;
  for (int begin = 0; begin < count; begin += kTileColumns) {
    const int slots = count - begin < kTileColumns ? count - begin : kTileColumns;
    const char* values = reinterpret_cast<const char*>(args.keys) +
                         block.pages[begin / kTileColumns] * args.page_bytes + args.key_bytes;
    if (slots >= (kBf16 ? 2 : 1)) panels[num_panels++] = {values, kBf16 ? slots / 2 : slots};
    if (kBf16 && slots % 2 != 0) {
      const char* row = values + int64_t{slots / 2} * args.padded_head_dim * kUnitBytes;
      for (int d = 0; d < args.padded_head_dim; d += kLanes) {
        const VecUint pairs = (VecUint)Load(row + d * kUnitBytes);
        Store(tail + d * kUnitBytes, (Vec)(pairs & 0xffffu));
      }
      panels[num_panels++] = {tail, 1};
    }
  }
  return num_panels;
}

template <bool kBf16, int kRows>
__attribute__((noinline)) void AttendTile(const AttendRows& args, const AttendScratch& s,
                                          const SlotBlock& block, int row, int count) {
  const int64_t q_units = QueryUnits(args);
  Vec max[kRows];
  for (int r = 0; r < kRows; ++r) max[r] = Broadcast(kHidden);

  const bool all_shown = args.tree_mask == nullptr && count % kTileColumns == 0 &&
                         VisibleSlots(args, block, row) == count;
  for (int begin = 0; begin < count; begin += kTileColumns) {
    const char* keys = reinterpret_cast<const char*>(args.keys) +
                       block.pages[begin / kTileColumns] * args.page_bytes;
    const int columns = count - begin < kTileColumns ? count - begin : kTileColumns;
    MultiplyKeys<kBf16>(s.q + row * q_units * kUnitBytes, q_units, keys, columns, s.logits + begin,
                        max);
  }

  const int padded = (count + 2 * kLanes - 1) / (2 * kLanes) * (2 * kLanes);
  float correction[kRows];
  for (int r = 0; r < kRows; ++r) {
    float* logits = s.logits + r * kBlockSlots;
    if (!all_shown) {
      HideSlots(args, block, row + r, padded, logits);
      max[r] = Broadcast(kHidden);
      for (int j = 0; j < padded; j += kLanes) max[r] = Max(max[r], Load(logits + j));
    }
    const float old_max = s.max[row + r];
    const float block_max = ReduceMax(max[r]);
    const float new_max = block_max > old_max ? block_max : old_max;
    s.max[row + r] = new_max;
    correction[r] = Exp2(old_max - new_max);
    const Vec sum =
        Exponentiate<kBf16>(logits, padded, new_max, s.weights + r * kBlockSlots * (kBf16 ? 2 : 4));
    float* total = s.sum + (row + r) * kLanes;
    Store(total, Fma(Load(total), Broadcast(correction[r]), sum));
  }

  Panel panels[kBlockPages + 1];
  const int num_panels = ValuePanels<kBf16>(args, block, count, s.tail, panels);
  MultiplyValues<kBf16>(s.weights, panels, num_panels, args.padded_head_dim, correction,
                        s.out + row * args.padded_head_dim);
}

template <bool kBf16>
void AttendBlock(const AttendRows& args, const AttendScratch& s, const SlotBlock& block) {
  for (int row = 0; row < args.num_rows; row += kTileRows) {
    const int rows = args.num_rows - row < kTileRows ? args.num_rows - row : kTileRows;
    const int count = VisibleSlots(args, block, row + rows - 1);
    if (count == 0) continue;
    DispatchRows(
        rows, [&](auto r) { AttendTile<kBf16, decltype(r)::value>(args, s, block, row, count); });
  }
}

inline void FinishRow(const AttendRows& args, const AttendScratch& s, int row) {
  const float sum = ReduceAdd(Load(s.sum + row * kLanes));
  const Vec inverse = Broadcast(1.f / sum);
  const float* from = s.out + row * args.padded_head_dim;
  float* out = args.out + row * args.out_stride;
  for (int d = 0; d < args.head_dim; d += kLanes) {
    StorePartial(out + d, Load(from + d) * inverse, args.head_dim - d);
  }
  if (args.lse != nullptr) {
    args.lse[row * args.lse_stride] = s.max[row] * kLn2 + __builtin_logf(sum);
  }
}

template <bool kBf16>
void AttendAll(const AttendRows& args, const AttendScratch& s) {
  PrepareQueries<kBf16>(args, s);
  for (int64_t i = 0; i < int64_t{args.num_rows} * args.padded_head_dim; ++i) s.out[i] = 0.f;
  for (int i = 0; i < args.num_rows; ++i) s.max[i] = kMaxBegin;
  for (int i = 0; i < args.num_rows * kLanes; ++i) s.sum[i] = 0.f;

  const auto walk = [&](const int32_t* pages, int num_slots, bool is_window) {
    for (int begin = 0; begin < num_slots; begin += kBlockSlots) {
      const int count = num_slots - begin < kBlockSlots ? num_slots - begin : kBlockSlots;
      AttendBlock<kBf16>(args, s, {pages + begin / kTileColumns, count, begin, is_window});
    }
  };
  walk(args.summary_pages, args.num_summaries, false);
  const int num_window = args.tree_mask != nullptr ? args.own_begin + args.num_own
                                                   : args.num_visible + args.num_rows - 1;
  walk(args.window_pages, num_window, true);
  for (int row = 0; row < args.num_rows; ++row) FinishRow(args, s, row);
}

size_t AttendScratchBytes(const AttendRows& args) {
  AttendScratch s;
  return LayOut(args, nullptr, s);
}

void Attend(const AttendRows& args, void* scratch) {
  AttendScratch s;
  LayOut(args, static_cast<char*>(scratch), s);
  if (args.is_bfloat16) {
    AttendAll<true>(args, s);
  } else {
    AttendAll<false>(args, s);
  }
}

}  // namespace
}  // namespace evaserve
