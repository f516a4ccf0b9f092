#pragma once

// All slots of the list for some rows of one head: queries in, tiles (attend_tile.h), results out.

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/isa/attend_tile.h"

namespace evaserve {
namespace {

// Rows that share a block of pages while it is in the cache. Chosen on Zen 4 with
// bench/kernels/attention_bench.
constexpr int kAttendRows = 96;

constexpr float kLog2E = 1.44269504088896341f;
constexpr float kLn2 = 0.693147180559945309f;

// Lays the parts out from `base` on and returns the end; a null base measures.
inline size_t LayOut(const AttendRows& args, char* base, AttendScratch& s) {
  size_t used = 0;
  const auto take = [&](int64_t bytes) {
    char* begin = base + used;
    used += (bytes + 63) / 64 * 64;
    return begin;
  };
  const int64_t rows = args.num_rows;
  s.q = take(rows * QueryUnits(args) * kUnitBytes);
  s.out = reinterpret_cast<float*>(take(rows * args.padded_head_dim * 4));
  s.base = reinterpret_cast<float*>(take(rows * 4));
  s.fresh = reinterpret_cast<bool*>(take(rows));
  s.started = reinterpret_cast<bool*>(take(rows));
  s.sum = reinterpret_cast<float*>(take(rows * kVecBytes));
  s.logits = reinterpret_cast<float*>(take(kTileRows * kTileWidth * 4));
  s.weights = take(kTileRows * kBlockSlots * 4);
  s.tail = take(args.padded_head_dim * kUnitBytes);
  return used;
}

// Rows of queries and results lie too far apart for the hardware to foresee.
inline void PrefetchRow(const AttendRows& args, int row) {
  if (row >= args.num_rows) return;
  for (int d = 0; d < args.head_dim; d += 16) {
    __builtin_prefetch(args.q + row * args.q_stride + d, /*write=*/0);
    __builtin_prefetch(args.out + row * args.out_stride + d, /*write=*/1);
  }
}

template <bool kBf16>
void PrepareQueries(const AttendRows& args, const AttendScratch& s) {
  const Vec scale = Broadcast(args.scale * kLog2E);
  for (int r = 0; r < args.num_rows; ++r) {
    const float* q = args.q + r * args.q_stride;
    PrefetchRow(args, r + 4);
    char* to = s.q + int64_t{r} * QueryUnits(args) * kUnitBytes;
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

template <bool kBf16>
void AttendBlock(const AttendRows& args, const AttendScratch& s, const SlotBlock& block) {
  for (int row = 0; row < args.num_rows; row += kTileRows) {
    const int rows = args.num_rows - row < kTileRows ? args.num_rows - row : kTileRows;
    const int count = VisibleSlots(args, block, row + rows - 1);
    if (count == 0) continue;
    DispatchRows(rows, [&](auto r) {
      RunTile<kBf16, decltype(r)::value>({args, s, block, row, count});
    });
  }
}

inline void FinishRow(const AttendRows& args, const AttendScratch& s, int row) {
  const float sum = ReduceAdd(Load(s.sum + int64_t{row} * kLanes));
  const Vec inverse = Broadcast(1.f / sum);
  const float* from = s.out + int64_t{row} * args.padded_head_dim;
  float* out = args.out + row * args.out_stride;
  for (int d = 0; d < args.head_dim; d += kLanes) {
    StorePartial(out + d, Load(from + d) * inverse, args.head_dim - d);
  }
  if (args.lse != nullptr) {
    args.lse[row * args.lse_stride] = s.base[row] * kLn2 + __builtin_logf(sum);
  }
}

inline const char* PageKeys(const AttendRows& args, const int32_t* page) {
  return reinterpret_cast<const char*>(args.keys) + *page * args.page_bytes;
}

template <bool kBf16>
void AttendAll(const AttendRows& args, const AttendScratch& s) {
  PrepareQueries<kBf16>(args, s);
  for (int i = 0; i < args.num_rows * kLanes; ++i) s.sum[i] = 0.f;
  for (int i = 0; i < args.num_rows; ++i) {
    s.base[i] = 0.f;
    s.started[i] = false;
    s.fresh[i] = true;
  }

  const auto walk = [&](const int32_t* pages, int num_slots, bool is_window, const char* list_end) {
    for (int begin = 0; begin < num_slots; begin += kBlockSlots) {
      const int count = num_slots - begin < kBlockSlots ? num_slots - begin : kBlockSlots;
      const char* next_keys = begin + kBlockSlots < num_slots
                                  ? PageKeys(args, pages + (begin + kBlockSlots) / kTileColumns)
                                  : list_end;
      AttendBlock<kBf16>(args, s,
                         {pages + begin / kTileColumns, count, begin, is_window, next_keys});
    }
  };
  walk(args.summary_pages, args.num_summaries, false, PageKeys(args, args.window_pages));
  const int num_window = args.tree_mask != nullptr ? args.own_begin + args.num_own
                                                   : args.num_visible + args.num_rows - 1;
  // The work after this piece is most likely the next head's, which lies behind this one's values.
  const char* next_head =
      PageKeys(args, args.num_summaries > 0 ? args.summary_pages : args.window_pages) +
      args.head_bytes;
  walk(args.window_pages, num_window, true, next_head);
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
