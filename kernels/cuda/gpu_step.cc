#include "kernels/cuda/gpu_step.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

// Up to so many queries the narrow kernel reads the slots once or twice, which is what counts.
constexpr int kFewQueries = 2 * kNarrowTileRows;
// Blocks of the narrow kernel that a multiprocessor runs at once.
constexpr int kNarrowBlocks = 2;

// Packs arrays for one copy to the device.
class Packer {
 public:
  template <typename T>
  int64_t Add(std::span<const T> values) {
    constexpr int64_t kAlignment = 16;
    const int64_t begin = (std::ssize(bytes_) + kAlignment - 1) / kAlignment * kAlignment;
    bytes_.resize(begin + values.size_bytes());
    if (!values.empty()) std::memcpy(bytes_.data() + begin, values.data(), values.size_bytes());
    return begin;
  }
  const std::vector<char>& bytes() const { return bytes_; }

 private:
  std::vector<char> bytes_;
};

absl::Status CheckPages(PageList pages, int num_pages, const std::string& field) {
  for (const int32_t page : pages) {
    if (page >= 0 && page < num_pages) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": page ", page, " is outside [0, ", num_pages, ")"));
  }
  return absl::OkStatus();
}

absl::Status CheckSlots(PageList pages, int64_t num_slots, int num_pages,
                        const std::string& field) {
  if (num_slots < 0 || num_slots > std::ssize(pages) * kCudaPageSlots) {
    return absl::InvalidArgumentError(absl::StrCat(field, ": ", num_slots, " slots in ",
                                                   pages.size(), " pages of ", kCudaPageSlots));
  }
  return CheckPages(pages, num_pages, field);
}

}  // namespace

absl::Status GpuStep::Validate(const Input& input, int num_pages) const {
  const int head_dim = options_.shape.head_dim;
  if (!IsCudaHeadDim(head_dim)) {
    return absl::InvalidArgumentError(
        absl::StrCat("head_dim is ", head_dim, "; allowed on a device: 32, 64, 96, 128"));
  }
  if (options_.chunk < 1 || kCudaPageSlots % options_.chunk != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "chunk is ", options_.chunk, "; allowed on a device: divisors of ", kCudaPageSlots));
  }
  if (std::ssize(input.positions) != input.num_rows) {
    return absl::InvalidArgumentError(
        absl::StrCat("positions: ", input.positions.size(), " for ", input.num_rows, " rows"));
  }
  int num_rows = 0;
  for (size_t i = 0; i < input.attends.size(); ++i) {
    const AttendSequence& s = input.attends[i];
    const std::string field = absl::StrCat("attends[", i, "]");
    if (s.query_begin != num_rows || s.num_queries < 1 || s.num_queries > s.slots.num_window) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, ": ", s.num_queries, " queries from row ", s.query_begin, " on, ",
                       s.slots.num_window,
                       " window slots; its rows must follow those before it, and have slots"));
    }
    num_rows += s.num_queries;
    absl::Status status = CheckSlots(s.slots.window_pages, s.slots.num_window, num_pages,
                                     absl::StrCat(field, ".window_pages"));
    if (!status.ok()) return status;
    status = CheckSlots(s.slots.summary_pages, s.slots.num_summaries, num_pages,
                        absl::StrCat(field, ".summary_pages"));
    if (!status.ok()) return status;
  }
  if (num_rows != input.num_rows) {
    return absl::InvalidArgumentError(
        absl::StrCat("attends: ", num_rows, " queries for ", input.num_rows, " rows"));
  }
  for (size_t i = 0; i < input.stores.size(); ++i) {
    const CudaStoreSequence& s = input.stores[i];
    const std::string field = absl::StrCat("stores[", i, "]");
    if (s.token_begin < 0 || s.num_tokens < 0 || s.token_begin + s.num_tokens > input.num_rows) {
      return absl::InvalidArgumentError(absl::StrCat(field, ": tokens [", s.token_begin, ", ",
                                                     s.token_begin + s.num_tokens, ") of ",
                                                     input.num_rows, " rows"));
    }
    const int64_t end = int64_t{s.slot_begin} + s.num_tokens;
    absl::Status status =
        CheckSlots(s.window_pages, end, num_pages, absl::StrCat(field, ".window_pages"));
    if (!status.ok()) return status;
    if (!s.summarize) continue;
    status = CheckSlots(s.summary_pages, s.summary_begin + end / options_.chunk, num_pages,
                        absl::StrCat(field, ".summary_pages"));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

void GpuStep::PlanParts(std::span<const AttendSequence> sequences) {
  std::vector<AttendSequence> many, few;
  for (const AttendSequence& sequence : sequences) {
    (sequence.num_queries <= kFewQueries ? few : many).push_back(sequence);
  }
  many_.plan = PlanAttend(many, has_wide() ? kWideTileRows : kPortableTileRows);
  few_.plan = PlanAttend(few, kNarrowTileRows);
  splits_ = PlanSplits(few_.plan, kNarrowTileRows,
                       {.num_heads = options_.num_heads,
                        .num_blocks = kNarrowBlocks * gpu_.info().num_multiprocessors});
}

absl::Status GpuStep::MakeWorkspace() {
  const int64_t num_heads = options_.num_heads;
  absl::Status status = Grow(gpu_, kZeroBytes, zeros_);
  if (!status.ok()) return status;
  status = Grow(gpu_,
                std::ssize(splits_) * num_heads * NarrowPartialFloats(options_.shape.head_dim) *
                    int64_t{sizeof(float)},
                partials_);
  if (!status.ok()) return status;
  return Grow(gpu_, std::ssize(few_.plan.tiles) * num_heads * int64_t{sizeof(int32_t)},
              num_arrived_);
}

absl::Status GpuStep::Upload(const Input& input) {
  Packer packer;
  const auto add_plan = [&](const AttendPlan& plan) {
    return std::array{packer.Add(std::span(plan.sequences)), packer.Add(std::span(plan.tiles)),
                      packer.Add(std::span(plan.pages)), packer.Add(std::span(plan.tree_masks))};
  };
  const auto many = add_plan(many_.plan), few = add_plan(few_.plan);
  const auto num_splits = static_cast<int32_t>(splits_.size());
  const int64_t splits = packer.Add(std::span<const CudaSplit>(splits_));
  const int64_t count = packer.Add(std::span(&num_splits, 1));
  const int64_t chunks = packer.Add(std::span<const CudaChunk>(chunks_));
  const int64_t positions = packer.Add(input.positions);

  const auto size = static_cast<int64_t>(packer.bytes().size());
  if (absl::Status status = Grow(gpu_, size, plan_); !status.ok()) return status;
  char* const base = plan_.as<char>();
  const auto bind = [&](const std::array<int64_t, 4>& at, Part& part) {
    part.args = {};
    part.args.sequences = reinterpret_cast<const CudaSequence*>(base + at[0]);
    part.args.tiles = reinterpret_cast<const CudaTile*>(base + at[1]);
    part.args.pages = reinterpret_cast<const int32_t*>(base + at[2]);
    part.args.tree_masks = reinterpret_cast<const uint32_t*>(base + at[3]);
    part.args.num_tiles = static_cast<int>(part.plan.tiles.size());
  };
  bind(many, many_);
  bind(few, few_);
  narrow_.splits = reinterpret_cast<const CudaSplit*>(base + splits);
  narrow_.num_splits = reinterpret_cast<const int32_t*>(base + count);
  narrow_.partials = partials_.as<float>();
  narrow_.num_arrived = num_arrived_.as<int32_t>();
  store_.chunks = reinterpret_cast<const CudaChunk*>(base + chunks);
  store_.num_chunks = static_cast<int>(chunks_.size());
  store_.positions = reinterpret_cast<const int32_t*>(base + positions);
  return gpu_.ToDevice(base, packer.bytes().data(), size);
}

absl::Status GpuStep::Prepare(const Input& input, int num_pages) {
  if (absl::Status status = Validate(input, num_pages); !status.ok()) return status;
  num_rows_ = input.num_rows;
  PlanParts(input.attends);
  chunks_ = PlanStoreChunks(input.stores, options_.chunk);
  if (absl::Status status = MakeWorkspace(); !status.ok()) return status;
  return Upload(input);
}

absl::Status GpuStep::Store(const Layer& layer) {
  StoreChunksArgs args = store_;
  args.num_heads = options_.num_heads;
  args.chunk = options_.chunk;
  args.pool = static_cast<char*>(layer.pool);
  args.page_bytes = page_bytes();
  args.q = layer.q;
  args.k = layer.k;
  args.v = layer.v;
  args.token_stride = layer.stride;
  args.cos = layer.cos;
  args.sin = layer.sin;
  args.mu = layer.mu;
  args.phi = layer.phi;
  args.scale = options_.scale;
  return LaunchStatus(LaunchStoreChunks(options_.shape, args, gpu_.stream()));
}

CudaAttendArgs GpuStep::ArgsFor(const Part& part, const Layer& layer, void* out,
                                int64_t out_stride) const {
  constexpr float kLog2E = 1.44269504088896341f;
  CudaAttendArgs args = part.args;
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

absl::Status GpuStep::Attend(const Layer& layer, void* out, int64_t out_stride) {
  if (many_.args.num_tiles > 0) {
    const CudaAttendArgs args = ArgsFor(many_, layer, out, out_stride);
    const std::string error =
        has_wide() ? LaunchAttendWide(options_.shape, args,
                                      {.num_tokens = num_rows_,
                                       .zeros = zeros_.as<void>(),
                                       .num_multiprocessors = gpu_.info().num_multiprocessors},
                                      gpu_.stream())
                   : LaunchAttendPortable(options_.shape, args, gpu_.stream());
    if (!error.empty()) return LaunchStatus(error);
  }
  if (few_.args.num_tiles == 0) return absl::OkStatus();
  NarrowAttendArgs args = narrow_;
  args.attend = ArgsFor(few_, layer, out, out_stride);
  return LaunchStatus(LaunchAttendNarrow(
      options_.shape, args, kNarrowBlocks * gpu_.info().num_multiprocessors, gpu_.stream()));
}

}  // namespace evaserve
