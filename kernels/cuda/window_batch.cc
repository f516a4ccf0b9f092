#include "kernels/cuda/window_batch.h"

#include <cstring>

#include "kernels/cuda/window_check.h"

namespace evaserve {
namespace {

template <typename T>
int64_t Pack(const std::vector<T>& values, std::vector<char>& bytes) {
  constexpr int64_t kAlignment = 16;
  const int64_t begin = (std::ssize(bytes) + kAlignment - 1) / kAlignment * kAlignment;
  bytes.resize(begin + std::ssize(values) * sizeof(T));
  if (!values.empty()) std::memcpy(bytes.data() + begin, values.data(), values.size() * sizeof(T));
  return begin;
}

template <typename T>
const T* At(const void* memory, int64_t place) {
  return reinterpret_cast<const T*>(static_cast<const char*>(memory) + place);
}

}  // namespace

WindowBatch::WindowBatch(const WindowOptions& options, const WindowPlan& plan)
    : options_(options),
      num_tiles_(static_cast<int>(plan.tiles.size())),
      tile_rows_(plan.tile_rows),
      num_groups_(static_cast<int>(plan.groups.size())),
      causal_chunk_(plan.causal_chunk),
      extension_(plan.extension),
      bias_head_stride_(plan.bias_head_stride),
      items_(Pack(plan.items, bytes_)),
      tiles_(Pack(plan.tiles, bytes_)),
      groups_(Pack(plan.groups, bytes_)),
      tables_(Pack(plan.tables, bytes_)) {}

absl::StatusOr<LandmarksArgs> WindowBatch::Args(const LandmarksLayer& layer,
                                                const void* memory) const {
  if (absl::Status status = CheckLayer(options_, layer); !status.ok()) return status;
  LandmarksArgs args;
  args.items = At<CudaRegionItem>(memory, items_);
  args.groups = At<CudaChunkGroup>(memory, groups_);
  args.tables = At<int32_t>(memory, tables_);
  args.num_groups = num_groups_;
  args.num_heads = options_.num_heads;
  args.head_dim = options_.shape.head_dim;
  args.q = layer.q;
  args.k = layer.k;
  args.v = layer.v;
  args.stride = layer.stride;
  args.map_q = layer.map_q;
  args.map_k = layer.map_k;
  args.mu_scale = layer.mu_scale;
  args.scale = options_.scale;
  args.k_bar = layer.k_bar;
  args.beta = layer.beta;
  return args;
}

absl::StatusOr<WindowAttendArgs> WindowBatch::Args(const WindowLayer& layer,
                                                   const void* memory) const {
  if (absl::Status status = CheckLayer(options_, layer); !status.ok()) return status;
  if (layer.bias != nullptr && bias_head_stride_ == 0) {
    return absl::InvalidArgumentError("one bias for windows of different sizes");
  }
  WindowAttendArgs args;
  args.items = At<CudaRegionItem>(memory, items_);
  args.tiles = At<CudaWindowTile>(memory, tiles_);
  args.tables = At<int32_t>(memory, tables_);
  args.num_tiles = num_tiles_;
  args.tile_rows = tile_rows_;
  args.num_heads = options_.num_heads;
  args.head_dim = options_.shape.head_dim;
  args.q = layer.q;
  args.q_stride = layer.q_stride;
  args.k = layer.k;
  args.v = layer.v;
  args.kv_stride = layer.kv_stride;
  args.k_bar = layer.k_bar;
  args.beta = layer.beta;
  args.bias = layer.bias;
  if (!layer.bias_is_shared) args.bias_head_stride = bias_head_stride_;
  args.out = layer.out;
  args.out_stride = layer.out_stride;
  args.lse = layer.lse;
  args.scale = options_.scale;
  args.causal_chunk = causal_chunk_;
  args.extension = extension_;
  return args;
}

}  // namespace evaserve
