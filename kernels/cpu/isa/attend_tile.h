#pragma once

// Attention of some rows of one head over its list of slots: online softmax in base 2, one block of
// kBlockPages pages after the other, first the summaries, then the window; within a block, one tile
// of columns after the other.
//
// Weights are 2^(logit - base). A row's base is 0, unless the largest logit of the first columns in
// which it sees anything is further away than kHeadroom: then it is that logit. It moves to a later
// logit that exceeds it by more than kHeadroom. Floating point does not mind a base that is off by
// a little, and so the usual columns need no second pass and never leave the registers.
//
// A row's result is the same to the bit however many rows share the tile: columns lie at fixed
// slots, a row's base follows from its own logits, and each row adds up its slots in their order.
// Slots that a row does not see get the weight 0; slots that no row of a tile sees are not touched,
// since they may hold NaN.

#include <cstdint>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/isa/matmul.h"
#include "kernels/cpu/isa/vector.h"

namespace evaserve {
namespace {

// Chosen on Zen 4 with bench/kernels/attention_bench.
constexpr int kBlockPages = 8;

constexpr int kBlockSlots = kBlockPages * kTileColumns;
constexpr float kHidden = -1e30f;  // the logit of a slot that a row does not see
constexpr float kHeadroom = 16.f;

struct AttendScratch {
  char* q;        // [rows, q_units] units, times scale * log2(e)
  float* out;     // [rows, padded_head_dim], not yet normalised
  bool* fresh;    // [rows], of the first row of a tile: nothing is in out yet
  float* base;    // [rows]
  bool* started;  // [rows]: has seen something, so the base stands
  float* sum;     // [rows, kLanes] of the weights
  float* logits;  // [kTileRows, kTileWidth], minus the base
  char* weights;  // [kTileRows, kBlockSlots] elements
  char* tail;     // [padded_head_dim] units: the last value row of an odd number of slots
};

inline int QueryUnits(const AttendRows& args) {
  return args.is_bfloat16 ? args.head_dim / 2 : args.head_dim;
}

// Some consecutive slots of a page list, at most kBlockSlots of them.
struct SlotBlock {
  const int32_t* pages = nullptr;
  int num_slots = 0;
  int begin = 0;                    // the first one in its list
  bool is_window = false;           // else summaries, which every row sees
  const char* next_keys = nullptr;  // of the block that will most likely come after it
};

// How many slots of the block, from its first on, `row` sees at most.
EVASERVE_INLINE int VisibleSlots(const AttendRows& args, const SlotBlock& block, int row) {
  if (!block.is_window || args.tree_mask != nullptr) return block.num_slots;
  const int visible = args.num_visible + row - block.begin;
  return visible < 0 ? 0 : visible < block.num_slots ? visible : block.num_slots;
}

// One tile: kRows rows from `row` on, and the first `count` slots of a block.
struct AttendTile {
  const AttendRows& args;
  const AttendScratch& s;
  const SlotBlock& block;
  int row = 0;
  int count = 0;
  int num_done = 0;  // slots whose weights are multiplied with the values already

  const char* keys(int slot) const {
    return reinterpret_cast<const char*>(args.keys) +
           block.pages[slot / kTileColumns] * args.page_bytes + slot % kTileColumns * kUnitBytes;
  }
  const char* values(int slot) const {
    return reinterpret_cast<const char*>(args.keys) +
           block.pages[slot / kTileColumns] * args.page_bytes + args.key_bytes;
  }
  bool HideInTree(int r, int slot) const {
    const int own = block.begin + slot - args.own_begin;
    return own >= 0 && args.tree_mask[int64_t{row + r} * args.num_own + own] == 0;
  }
};

// The values of slots [begin, end) of a block as panels. An odd last slot of bfloat16 shares its
// unit with one that may never have been written: it is copied without it.
template <bool kBf16>
EVASERVE_INLINE int ValuePanels(const AttendTile& t, int begin, int end, Panel* panels) {
  const int64_t row_bytes = int64_t{t.args.padded_head_dim} * kUnitBytes;
  constexpr int kPack = kBf16 ? 2 : 1;
  int num_panels = 0;
  while (begin < end) {
    const int in_page = begin % kTileColumns;
    const int room = kTileColumns - in_page;
    const int slots = end - begin < room ? end - begin : room;
    const char* rows = t.values(begin) + in_page / kPack * row_bytes;
    if (slots >= kPack) panels[num_panels++] = {rows, slots / kPack};
    if (slots % kPack != 0) {
      for (int d = 0; d < t.args.padded_head_dim; d += kLanes) {
        const VecUint pairs = (VecUint)Load(rows + slots / kPack * row_bytes + d * kUnitBytes);
        Store(t.s.tail + d * kUnitBytes, (Vec)(pairs & 0xffffu));
      }
      panels[num_panels++] = {t.s.tail, 1};
    }
    begin += slots;
  }
  return num_panels;
}

// out += weights * values for the slots up to `end` that are not done yet.
template <bool kBf16, int kRows>
EVASERVE_INLINE void MultiplyValues(AttendTile& t, int end) {
  constexpr int64_t kWeightBytes = kBf16 ? 2 : 4;
  Panel panels[kBlockPages + 1];
  const int num_panels = ValuePanels<kBf16>(t, t.num_done, end, panels);
  const int columns = t.args.padded_head_dim;
  float* out = t.s.out + int64_t{t.row} * columns;
  const bool fresh = t.s.fresh[t.row];
  t.s.fresh[t.row] = false;
  for (int begin = 0; begin < columns; begin += kTileWidth) {
    DispatchVecs(
        columns - begin, [&](auto vecs) __attribute__((always_inline)) {
          constexpr int kVecs = decltype(vecs)::value;
          Accumulators<kRows, kVecs> acc;
          for (int r = 0; r < kRows; ++r) {
            for (int n = 0; n < kVecs; ++n) {
              acc.at[r][n] = fresh ? Vec{} : Load(out + r * columns + begin + n * kLanes);
            }
          }
          const char* a = t.s.weights + t.num_done * kWeightBytes;
          const Panel* panel = panels;
          do {
            const bool is_last = panel + 1 == panels + num_panels;
            const char* ahead = is_last ? t.block.next_keys : panel[1].data + begin * kUnitBytes;
            MultiplyPanel<kBf16>(a, kBlockSlots * kWeightBytes, panel->data + begin * kUnitBytes,
                                 int64_t{columns} * kUnitBytes, panel->num_units, acc, ahead);
            a += panel->num_units * kUnitBytes;
          } while (++panel < panels + num_panels);
          for (int r = 0; r < kRows; ++r) {
            for (int n = 0; n < kVecs; ++n) {
              Store(out + r * columns + begin + n * kLanes, acc.at[r][n]);
            }
          }
        });
  }
  t.num_done = end;
}

// The weights of kVecs vectors of logits, for slots from `begin` on, and their sum.
template <bool kBf16, int kVecs>
EVASERVE_INLINE void Weigh(const AttendTile& t, int r, int begin, const Vec (&logits)[kVecs]) {
  float* sum = t.s.sum + int64_t{t.row + r} * kLanes;
  char* weights = t.s.weights + (r * kBlockSlots + begin) * (kBf16 ? 2 : 4);
  Vec total = Load(sum);
  if constexpr (kBf16) {
    for (int n = 0; n < kVecs; n += 2) {
      const Vec a = Exp2<true>(logits[n]);
      const Vec b = n + 1 < kVecs ? Exp2<true>(logits[n + 1]) : Vec{};
      const Vec pairs = ToBFloat16(a, b);
      // The sum is of the rounded weights: then they sum to 1 exactly, and a lone one is exact.
      total = DotPairs(pairs, (Vec)BroadcastInt(0x3f803f80), total);
      Store(weights + n * kLanes * 2, pairs);
    }
  } else {
    for (int n = 0; n < kVecs; ++n) {
      const Vec a = Exp2<false>(logits[n]);
      total = total + a;
      Store(weights + n * kLanes * 4, a);
    }
  }
  Store(sum, total);
}

// Moves the base of row r by `delta` and scales what the row has so far, if anything.
inline void MoveBase(const AttendTile& t, int r, float delta) {
  const int row = t.row + r;
  t.s.base[row] += delta;
  if (!t.s.started[row]) return;
  const Vec factor = Broadcast(Exp2(-delta));
  float* sum = t.s.sum + int64_t{row} * kLanes;
  Store(sum, Load(sum) * factor);
  float* out = t.s.out + int64_t{row} * t.args.padded_head_dim;
  for (int d = 0; d < t.args.padded_head_dim; d += kLanes) Store(out + d, Load(out + d) * factor);
}

// What the columns in s.logits make of the bases, then their weights: the way of columns that the
// bases do not suit, and of trees.
template <bool kBf16, int kRows, int kVecs>
__attribute__((noinline)) void WeighCarefully(AttendTile& t, int begin) {
  float delta[kRows];
  bool moves[kRows], starts[kRows];
  bool any_moves = false;
  for (int r = 0; r < kRows; ++r) {
    float* logits = t.s.logits + r * kTileWidth;
    for (int j = 0; t.block.is_window && t.args.tree_mask && j < kVecs * kLanes; ++j) {
      if (begin + j < t.count && t.HideInTree(r, begin + j)) logits[j] = kHidden;
    }
    Vec top = Load(logits);
    for (int n = 1; n < kVecs; ++n) top = Max(top, Load(logits + n * kLanes));
    const float max = ReduceMax(top);
    const bool starts_low = !t.s.started[t.row + r] && max <= -kHeadroom && max > kHidden;
    moves[r] = max > kHeadroom || starts_low;
    delta[r] = moves[r] ? max : 0.f;
    starts[r] = max > kHidden;
    any_moves = any_moves || moves[r];
  }
  if (any_moves && t.num_done < begin) MultiplyValues<kBf16, kRows>(t, begin);

  for (int r = 0; r < kRows; ++r) {
    const float* from = t.s.logits + r * kTileWidth;
    if (moves[r]) MoveBase(t, r, delta[r]);
    if (starts[r]) t.s.started[t.row + r] = true;
    Vec logits[kVecs];
    for (int n = 0; n < kVecs; ++n) logits[n] = Load(from + n * kLanes) - Broadcast(delta[r]);
    Weigh<kBf16>(t, r, begin, logits);
  }
}

// True if the bases suit these columns, of which row_top holds the largest logits, lane by lane.
// Rows that had not seen anything have, then.
template <int kRows>
EVASERVE_INLINE bool BasesSuit(const AttendTile& t, const Vec (&row_top)[kRows]) {
  if (t.args.tree_mask != nullptr && t.block.is_window) return false;
  Vec top = row_top[0];
  for (int r = 1; r < kRows; ++r) top = Max(top, row_top[r]);
  if (AnyGreater(top, Broadcast(kHeadroom))) return false;
  bool* started = t.s.started + t.row;
  for (int r = 0; r < kRows; ++r) {
    if (!started[r] && !AnyGreater(row_top[r], Broadcast(-kHeadroom))) return false;
  }
  for (int r = 0; r < kRows; ++r) started[r] = true;
  return true;
}

// Logits and weights of kVecs vectors of slots from `begin` on.
template <bool kBf16, int kRows, int kVecs>
EVASERVE_INLINE void ScoreColumns(AttendTile& t, int begin) {
  const int q_bytes = QueryUnits(t.args) * kUnitBytes;
  Accumulators<kRows, kVecs> acc;
  for (int r = 0; r < kRows; ++r) {
    const Vec base = Broadcast(-t.s.base[t.row + r]);
    for (int n = 0; n < kVecs; ++n) acc.at[r][n] = base;
  }
  const int next = begin + kTileColumns;
  MultiplyPanel<kBf16>(t.s.q + int64_t{t.row} * q_bytes, q_bytes, t.keys(begin),
                       kTileColumns * kUnitBytes, q_bytes / kUnitBytes, acc,
                       next < t.count ? t.keys(next) : t.values(0));

  if (VisibleSlots(t.args, t.block, t.row) < begin + kVecs * kLanes) {
    for (int r = 0; r < kRows; ++r) {
      const int visible = VisibleSlots(t.args, t.block, t.row + r) - begin;
      for (int n = 0; n < kVecs; ++n) {
        acc.at[r][n] = KeepFirst(acc.at[r][n], visible - n * kLanes, Broadcast(kHidden));
      }
    }
  }

  Vec row_top[kRows];
  for (int r = 0; r < kRows; ++r) {
    row_top[r] = acc.at[r][0];
    for (int n = 1; n < kVecs; ++n) row_top[r] = Max(row_top[r], acc.at[r][n]);
  }
  if (BasesSuit(t, row_top)) {
    for (int r = 0; r < kRows; ++r) Weigh<kBf16>(t, r, begin, acc.at[r]);
    return;
  }
  for (int r = 0; r < kRows; ++r) {
    for (int n = 0; n < kVecs; ++n) {
      Store(t.s.logits + r * kTileWidth + n * kLanes, acc.at[r][n]);
    }
  }
  WeighCarefully<kBf16, kRows, kVecs>(t, begin);
}

template <bool kBf16, int kRows>
__attribute__((noinline)) void RunTile(AttendTile t) {
  for (int begin = 0; begin < t.count; begin += kTileWidth) {
    DispatchVecs(
        t.count - begin, [&](auto vecs) __attribute__((always_inline)) {
          ScoreColumns<kBf16, kRows, decltype(vecs)::value>(t, begin);
        });
  }
  MultiplyValues<kBf16, kRows>(t, t.count);
}

}  // namespace
}  // namespace evaserve
