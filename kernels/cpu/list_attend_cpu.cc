#include <algorithm>
#include <numeric>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/parallel.h"
#include "kernels/list_attend.h"

namespace evaserve {
namespace {

// One head of an item is one window without landmarks.
WindowAttend MakeWindow(const ListAttendParams& p, const ListAttendItem& item, int head) {
  const int64_t column = int64_t{head} * p.head_dim;
  WindowAttend window;
  window.q = p.q + item.query_begin * p.q_stride + column;
  window.q_stride = p.q_stride;
  window.k = p.k + column;
  window.v = p.v + column;
  window.kv_stride = p.kv_stride;
  window.keys = item.keys.data();
  window.num_windows = 1;
  window.num_queries = item.num_queries;
  window.num_keys = static_cast<int>(item.keys.size());
  window.scale = p.scale;
  window.head_dim = p.head_dim;
  window.is_bfloat16 = p.dtype == DType::kBFloat16;
  window.out = p.out + item.query_begin * p.out_stride + column;
  window.out_stride = p.out_stride;
  return window;
}

}  // namespace

absl::Status ListAttendCpu(const ListAttendParams& params, WorkerPool& pool) {
  if (absl::Status status = Validate(params); !status.ok()) return status;
  const CpuKernels& kernels = GetCpuKernels();
  int64_t work = 0;
  for (const ListAttendItem& item : params.items) {
    // Keys and values are packed once more for each item.
    work += (int64_t{item.num_queries} + 2) * static_cast<int64_t>(item.keys.size()) *
            params.head_dim * 2;
  }
  const int num_items = static_cast<int>(params.items.size());
  if (num_items == 0) return absl::OkStatus();
  ParallelFor(
      pool, num_items * params.num_heads, work / num_items, [&](int begin, int end, int worker) {
        for (int i = begin; i < end; ++i) {
          const ListAttendItem& item = params.items[i / params.num_heads];
          WindowAttend window = MakeWindow(params, item, i % params.num_heads);
          const size_t list_bytes = (size_t(item.num_queries) * 4 + 63) / 64 * 64;
          char* scratch = static_cast<char*>(
              pool.Scratch(worker, list_bytes + kernels.window_attend_scratch_bytes(window)));
          auto* queries = reinterpret_cast<int32_t*>(scratch);
          std::iota(queries, queries + item.num_queries, 0);
          window.queries = queries;
          kernels.window_attend(window, scratch + list_bytes);
        }
      });
  return absl::OkStatus();
}

}  // namespace evaserve
