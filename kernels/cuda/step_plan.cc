#include "kernels/cuda/step_plan.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "kernels/cuda/launch_status.h"
#include "kernels/cuda/step_check.h"

namespace evaserve {
namespace {

// Up to so many queries the narrow kernel reads the slots once or twice, which is what counts.
constexpr int kFewQueries = 2 * kNarrowTileRows;

// Puts arrays one after another.
class Packer {
 public:
  explicit Packer(std::vector<char>& bytes) : bytes_(bytes) {}

  // Where `values` begin; there is room for `count` of them, or as many as there are.
  template <typename T>
  int64_t Add(std::span<const T> values, int64_t count = 0) {
    constexpr int64_t kAlignment = 16;
    const int64_t begin = (std::ssize(bytes_) + kAlignment - 1) / kAlignment * kAlignment;
    bytes_.resize(begin + std::max<int64_t>(count, std::ssize(values)) * sizeof(T));
    if (!values.empty()) std::memcpy(bytes_.data() + begin, values.data(), values.size_bytes());
    return begin;
  }

 private:
  std::vector<char>& bytes_;
};

template <typename T>
const T* At(const StepMemory& memory, int64_t place) {
  return reinterpret_cast<const T*>(static_cast<const char*>(memory.plan) + place);
}

}  // namespace

absl::StatusOr<StepPlan> StepPlan::Make(const StepOptions& options, const StepInput& input,
                                        int num_pages, const StepRoom* room) {
  if (absl::Status status = CheckStep(options, input, num_pages, room); !status.ok()) return status;
  StepPlan plan(options);
  plan.Pack(input, room);
  return plan;
}

int StepPlan::many_tile_rows() const {
  return is_float() ? kFloatTileRows : has_wide() ? kWideTileRows : kPortableTileRows;
}

int64_t StepPlan::page_bytes() const {
  return CudaPageBytes(options_.num_heads, options_.shape.head_dim, SizeOf(options_.shape.type));
}

void StepPlan::Pack(const StepInput& input, const StepRoom* room) {
  const StepRoom no_room;
  const StepRoom& least = room != nullptr ? *room : no_room;
  num_rows_ = std::max(input.num_rows, least.num_rows);
  std::vector<AttendSequence> many, few;
  for (const AttendSequence& sequence : input.attends) {
    (is_float() || sequence.num_queries > kFewQueries ? many : few).push_back(sequence);
  }
  const AttendPlan many_plan = PlanAttend(many, many_tile_rows());
  const AttendPlan few_plan = PlanAttend(few, kNarrowTileRows);
  const SplitOptions split_options{.num_heads = options_.num_heads,
                                   .num_blocks = options_.num_narrow_blocks};
  const std::vector<CudaSplit> splits = PlanSplits(few_plan, kNarrowTileRows, split_options);
  const auto num_splits = static_cast<int32_t>(splits.size());
  std::vector<CudaChunk> chunks = PlanStoreChunks(input.stores, options_.chunk);
  chunks.resize(std::max<size_t>(chunks.size(), least.num_rows));  // these do nothing
  num_chunks_ = static_cast<int>(chunks.size());

  Packer packer(bytes_);
  const auto add = [&](const AttendPlan& plan, const StepRoom& room) {
    const int64_t rows = room.num_rows;
    return Part{.num_tiles = static_cast<int>(plan.tiles.size()),
                .sequences = packer.Add(std::span(plan.sequences), rows),
                .tiles = packer.Add(std::span(plan.tiles), rows),
                .pages = packer.Add(std::span(plan.pages), rows * room.pages_per_row),
                .tree_masks = packer.Add(std::span(plan.tree_masks))};
  };
  many_ = add(many_plan, no_room);
  few_ = add(few_plan, least);
  few_.num_tiles = std::max(few_.num_tiles, least.num_rows);
  const int64_t most_splits =
      std::max<int64_t>(num_splits, MaxSplits(least.num_rows, split_options));
  splits_ = packer.Add(std::span(splits), most_splits);
  num_splits_ = packer.Add(std::span(&num_splits, 1));
  chunks_ = packer.Add(std::span<const CudaChunk>(chunks));
  positions_ = packer.Add(input.positions, num_rows_);
  tokens_ = packer.Add(input.tokens, num_rows_);
  num_arrived_ = int64_t{few_.num_tiles} * options_.num_heads;
  num_partial_floats_ =
      most_splits * options_.num_heads * NarrowPartialFloats(options_.shape.head_dim);
}

const int32_t* StepPlan::tokens(const StepMemory& memory) const {
  return At<int32_t>(memory, tokens_);
}

absl::Status StepPlan::Store(const StepLayer& layer, const StepMemory& memory, void* stream) const {
  if (absl::Status status = CheckLayer(options_, layer, /*out=*/nullptr); !status.ok())
    return status;
  return LaunchStatus(LaunchStoreChunks(options_.shape,
                                        {.chunks = At<CudaChunk>(memory, chunks_),
                                         .num_chunks = num_chunks_,
                                         .num_heads = options_.num_heads,
                                         .chunk = options_.chunk,
                                         .pool = static_cast<char*>(layer.pool),
                                         .page_bytes = page_bytes(),
                                         .q = layer.q,
                                         .k = layer.k,
                                         .v = layer.v,
                                         .token_stride = layer.stride,
                                         .positions = At<int32_t>(memory, positions_),
                                         .cos = layer.cos,
                                         .sin = layer.sin,
                                         .mu = layer.mu,
                                         .phi = layer.phi,
                                         .scale = options_.scale},
                                        stream));
}

CudaAttendArgs StepPlan::AttendArgs(const Part& part, const StepLayer& layer, void* out,
                                    int64_t out_stride, const StepMemory& memory) const {
  constexpr float kLog2E = 1.44269504088896341f;
  CudaAttendArgs args;
  args.sequences = At<CudaSequence>(memory, part.sequences);
  args.tiles = At<CudaTile>(memory, part.tiles);
  args.pages = At<int32_t>(memory, part.pages);
  args.tree_masks = At<uint32_t>(memory, part.tree_masks);
  args.num_tiles = part.num_tiles;
  args.num_heads = options_.num_heads;
  args.pool = static_cast<const char*>(layer.pool);
  args.page_bytes = page_bytes();
  args.q = layer.q;
  args.q_stride = layer.stride;
  args.out = out;
  args.out_stride = out_stride;
  args.scale_log2 = options_.scale * kLog2E;
  return args;
}

absl::Status StepPlan::AttendMany(const CudaAttendArgs& args, const StepMemory& memory,
                                  void* stream) const {
  if (is_float()) {
    return LaunchStatus(LaunchAttendFloat(options_.shape.head_dim, args, stream));
  }
  if (!has_wide()) return LaunchStatus(LaunchAttendPortable(options_.shape, args, stream));
  return LaunchStatus(LaunchAttendWide(options_.shape, args,
                                       {.num_tokens = num_rows_,
                                        .zeros = memory.zeros,
                                        .num_multiprocessors = options_.num_multiprocessors},
                                       stream));
}

absl::Status StepPlan::Attend(const StepLayer& layer, void* out, int64_t out_stride,
                              const StepMemory& memory, void* stream) const {
  const StepOut checked{out, out_stride};
  if (absl::Status status = CheckLayer(options_, layer, &checked); !status.ok()) return status;
  if (many_.num_tiles > 0) {
    absl::Status status =
        AttendMany(AttendArgs(many_, layer, out, out_stride, memory), memory, stream);
    if (!status.ok()) return status;
  }
  if (few_.num_tiles == 0) return absl::OkStatus();
  return LaunchStatus(
      LaunchAttendNarrow(options_.shape,
                         {.attend = AttendArgs(few_, layer, out, out_stride, memory),
                          .splits = At<CudaSplit>(memory, splits_),
                          .num_splits = At<int32_t>(memory, num_splits_),
                          .partials = memory.partials,
                          .num_arrived = memory.num_arrived},
                         options_.num_narrow_blocks, stream));
}

}  // namespace evaserve
