#include <algorithm>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/parallel.h"
#include "kernels/window_attend.h"

namespace evaserve {
namespace {

// Pieces of work in their order: the windows of head 0 of the first item, of head 1, ...
struct Cursor {
  const RegionItem* item = nullptr;
  int head = 0;
  int window = 0;
};

int NumPieces(const RegionItem& item, int num_heads) {
  return item.regions->num_windows * num_heads;
}

// The item is found by walking to it: once for many pieces.
Cursor FindPiece(const WindowAttendParams& p, int index) {
  const RegionItem* item = p.items.data();
  for (; index >= NumPieces(*item, p.num_heads); ++item) index -= NumPieces(*item, p.num_heads);
  return {item, index / item->regions->num_windows, index % item->regions->num_windows};
}

// Behind the windows that are left of a head.
Cursor NextHead(const WindowAttendParams& p, const Cursor& at) {
  if (at.head + 1 < p.num_heads) return {at.item, at.head + 1, 0};
  const RegionItem* item = at.item + 1;
  while (item != p.items.data() + p.items.size() && item->regions->num_windows == 0) ++item;
  return {item, 0, 0};
}

WindowAttend MakeWindows(const WindowAttendParams& p, const Cursor& at, int num_windows) {
  const Regions& regions = *at.item->regions;
  const int64_t column = int64_t{at.head} * p.head_dim;
  const int64_t token = at.item->token_begin;
  const int64_t landmark =
      (at.item->landmark_begin * p.num_heads + int64_t{at.head} * regions.num_chunks) * p.head_dim;
  WindowAttend windows;
  windows.q = p.q + token * p.stride + column;
  windows.k = p.k + token * p.stride + column;
  windows.v = p.v + token * p.stride + column;
  windows.q_stride = windows.kv_stride = p.stride;
  windows.queries = regions.queries_of(at.window).data();
  windows.keys = regions.keys_of(at.window).data();
  windows.num_windows = num_windows;
  windows.num_queries = regions.window_queries;
  windows.num_keys = regions.window_keys;
  windows.k_bar = p.k_bar + landmark;
  windows.beta = p.beta + landmark;
  windows.num_landmarks = regions.num_chunks;
  if (p.bias != nullptr) {
    windows.bias =
        p.bias + int64_t{at.head} * regions.window_queries * int64_t{regions.window_keys};
  }
  windows.scale = p.scale;
  windows.head_dim = p.head_dim;
  windows.is_bfloat16 = p.dtype == DType::kBFloat16;
  windows.out = p.out + token * p.out_stride + column;
  windows.out_stride = p.out_stride;
  windows.lse = p.lse == nullptr ? nullptr : p.lse + token * p.num_heads + at.head;
  windows.lse_stride = p.num_heads;
  return windows;
}

}  // namespace

absl::Status WindowAttendCpu(const WindowAttendParams& params, WorkerPool& pool) {
  if (absl::Status status = Validate(params); !status.ok()) return status;
  const CpuKernels& kernels = GetCpuKernels();
  int num_pieces = 0;
  int64_t work = 0;
  for (const RegionItem& item : params.items) {
    const Regions& regions = *item.regions;
    const int pieces = NumPieces(item, params.num_heads);
    num_pieces += pieces;
    work += int64_t{pieces} * regions.window_queries * (regions.window_keys + regions.num_chunks) *
            params.head_dim * 2;
  }
  if (num_pieces == 0) return absl::OkStatus();

  ParallelFor(pool, num_pieces, work / num_pieces, [&](int begin, int end, int worker) {
    for (Cursor at = FindPiece(params, begin); begin < end; at = NextHead(params, at)) {
      const int count = std::min(end - begin, at.item->regions->num_windows - at.window);
      const WindowAttend windows = MakeWindows(params, at, count);
      kernels.window_attend(windows,
                            pool.Scratch(worker, kernels.window_attend_scratch_bytes(windows)));
      begin += count;
    }
  });
  return absl::OkStatus();
}

}  // namespace evaserve
