#include "kernels/cuda/window_plan.h"

#include <algorithm>
#include <limits>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/window_check.h"

namespace evaserve {
namespace {

// Collects what a plan holds.
class WindowPlanner {
 public:
  explicit WindowPlanner(const WindowOptions& options) : options_(options) {}

  // Of a whole sequence or map, whose rows in q and in k and v are the same.
  void Add(const RegionItem& item) {
    const Tables& at = TablesOf(*item.regions);
    CudaRegionItem& to = plan_.items.emplace_back(at.item);
    to.query_begin = to.key_begin = item.token_begin;
    to.landmark_begin = item.landmark_begin;
    for (int window = 0; window < item.regions->num_windows; ++window) {
      AddWindow(window, item.regions->queries_of(window));
    }
    AddGroups(at.members, item.regions->num_chunks, item.regions->chunk_members);
  }

  void AddStep(const CausalEvaShape& shape, const CausalStep& step) {
    const int places = step.position % shape.window, first = step.position - places;
    std::vector<int32_t> queries(shape.window, -1), keys(shape.num_keys(), -1);
    for (int i = 0; i < step.num_tokens; ++i) {
      queries[places + i] = i;
      plan_.state_rows.push_back(
          static_cast<int32_t>(step.state_begin + (step.position + i) % shape.num_keys()));
    }
    const int end = places + step.num_tokens;
    for (int i = 0; i < shape.extension() + end; ++i) {
      const int position = first - shape.extension() + i;
      if (position >= 0) keys[i] = position % shape.num_keys();
    }
    CudaRegionItem& item = plan_.items.emplace_back();
    item.query_begin = step.row_begin;
    item.key_begin = step.state_begin;
    item.landmark_begin = step.landmark_begin;
    item.num_landmarks = step.max_chunks;
    item.position = first;
    item.window_queries = shape.window;
    item.window_keys = shape.num_keys();
    item.queries = Append(queries);
    item.keys = Append(keys);
    item.inside = AppendInside(keys, shape.num_keys());
    AddWindow(0, queries);
    AddClosedChunks(shape, step);
  }

  absl::StatusOr<WindowPlan> Finish(int causal_chunk, int extension) {
    plan_.causal_chunk = causal_chunk;
    plan_.extension = extension;
    MakeTiles();
    MeasureItems();
    const int64_t most = std::numeric_limits<int32_t>::max(), num_heads = options_.num_heads;
    if (std::ssize(plan_.tables) > most || std::ssize(plan_.tiles) * num_heads > most ||
        std::ssize(plan_.groups) * num_heads > most) {
      return absl::InvalidArgumentError(absl::StrCat(
          "items: ", plan_.items.size(), " of them have more windows than there may be"));
    }
    return std::move(plan_);
  }

 private:
  struct Tables {
    CudaRegionItem item;  // with its counts and the numbers of its tables
    int32_t members = 0;
  };
  struct Window {
    int32_t item = 0, number = 0;
    int row_begin = 0, row_end = 0;  // from the first token to the last one
  };

  int32_t Index() const { return static_cast<int32_t>(plan_.items.size()) - 1; }

  int32_t Append(std::span<const int32_t> table) {
    const auto begin = static_cast<int32_t>(plan_.tables.size());
    plan_.tables.insert(plan_.tables.end(), table.begin(), table.end());
    return begin;
  }

  // A bit for each place of `rows`, which are windows of so many places each.
  int32_t AppendInside(std::span<const int32_t> rows, int places) {
    const auto begin = static_cast<int32_t>(plan_.tables.size());
    for (size_t window = 0; window < rows.size(); window += places) {
      for (int first = 0; first < places; first += 32) {
        uint32_t word = 0;
        for (int i = first; i < std::min(first + 32, places); ++i) {
          word |= uint32_t{rows[window + i] >= 0} << (i - first);
        }
        plan_.tables.push_back(static_cast<int32_t>(word));
      }
    }
    return begin;
  }

  const Tables& TablesOf(const Regions& regions) {
    const auto [it, is_new] = tables_of_.try_emplace(&regions);
    Tables& at = it->second;
    if (!is_new) return at;
    at.item.num_landmarks = regions.num_chunks;
    at.item.window_queries = regions.window_queries;
    at.item.window_keys = regions.window_keys;
    at.item.queries = Append(regions.queries);
    at.item.keys = Append(regions.keys);
    at.item.inside = AppendInside(regions.keys, regions.window_keys);
    at.members = Append(regions.members);
    return at;
  }

  void AddGroups(int32_t members, int num_chunks, int num_members) {
    const int num_groups = (num_chunks + kCudaChunkGroup - 1) / kCudaChunkGroup;
    for (int i = 0, begin = 0; i < num_groups; ++i) {
      // Of about one size each: 49 chunks are seven groups of seven.
      const int count = (num_chunks - begin + num_groups - i - 1) / (num_groups - i);
      plan_.groups.push_back({Index(), members + begin * num_members, begin, count, num_members});
      begin += count;
    }
  }

  // Those that the step's tokens make full.
  void AddClosedChunks(const CausalEvaShape& shape, const CausalStep& step) {
    const int end = (step.position + step.num_tokens) / shape.chunk;
    for (int chunk = step.position / shape.chunk; chunk < end; ++chunk) {
      std::vector<int32_t> members;
      for (int i = 0; i < shape.chunk; ++i) {
        members.push_back((chunk * shape.chunk + i) % shape.num_keys());
      }
      plan_.groups.push_back({Index(), Append(members), chunk, 1, shape.chunk});
    }
  }

  void AddWindow(int number, std::span<const int32_t> queries) {
    const auto is_token = [](int32_t token) { return token >= 0; };
    const auto first = std::ranges::find_if(queries, is_token);
    const auto last = std::find_if(queries.rbegin(), queries.rend(), is_token).base();
    if (first == queries.end()) return;
    windows_.push_back({Index(), number, static_cast<int>(first - queries.begin()),
                        static_cast<int>(last - queries.begin())});
  }

  // Of as many rows as the widest window has, 16 for each warp, but no more than a block takes.
  void MakeTiles() {
    int rows = kFloatTileRows;
    if (options_.shape.type != DType::kFloat32) {
      int most = 1;
      for (const Window& w : windows_) most = std::max(most, w.row_end - w.row_begin);
      rows = std::min((most + 15) / 16 * 16, kWindowTileRows);
    }
    plan_.tile_rows = rows;
    for (const Window& w : windows_) {
      for (int row = w.row_begin; row < w.row_end; row += rows) {
        plan_.tiles.push_back({w.item, w.number, row, std::min(rows, w.row_end - row)});
      }
    }
  }

  void MeasureItems() {
    const int64_t width = int64_t{options_.num_heads} * options_.shape.head_dim;
    const auto pairs = [](const CudaRegionItem& item) {
      return int64_t{item.window_queries} * item.window_keys;
    };
    for (const CudaRegionItem& item : plan_.items) {
      const CudaRegionItem& first = plan_.items[0];
      const bool is_alike =
          item.window_queries == first.window_queries && item.window_keys == first.window_keys;
      if (&item == &first) plan_.bias_head_stride = pairs(first);
      if (!is_alike) plan_.bias_head_stride = 0;
      plan_.landmark_elements =
          std::max(plan_.landmark_elements, (item.landmark_begin + item.num_landmarks) * width);
    }
  }

  const WindowOptions& options_;
  WindowPlan plan_;
  std::vector<Window> windows_;
  std::map<const Regions*, Tables> tables_of_;
};

// A sequence in windows that each see the one before, if there is overlap, and its full chunks.
Regions CausalRegions(const CausalEvaShape& shape, int length) {
  Regions regions;
  regions.num_tokens = length;
  regions.num_windows = (length + shape.window - 1) / shape.window;
  regions.window_queries = shape.window;
  regions.window_keys = shape.num_keys();
  regions.num_chunks = length / shape.chunk;
  regions.chunk_members = shape.chunk;
  const auto append = [&](int begin, int end, std::vector<int32_t>& table) {
    for (int i = begin; i < end; ++i) table.push_back(i >= 0 && i < length ? i : -1);
  };
  for (int window = 0; window < regions.num_windows; ++window) {
    const int begin = window * shape.window, end = begin + shape.window;
    append(begin, end, regions.queries);
    append(begin - shape.extension(), end, regions.keys);
  }
  append(0, regions.num_chunks * shape.chunk, regions.members);
  return regions;
}

}  // namespace

absl::StatusOr<WindowPlan> PlanWindows(const WindowOptions& options,
                                       std::span<const RegionItem> items) {
  if (absl::Status status = CheckWindows(options, items); !status.ok()) return status;
  WindowPlanner planner(options);
  for (const RegionItem& item : items) planner.Add(item);
  return planner.Finish(/*causal_chunk=*/0, /*extension=*/0);
}

absl::StatusOr<WindowPlan> PlanCausal(const WindowOptions& options, const CausalEvaShape& shape,
                                      std::span<const int> lengths) {
  if (absl::Status status = CheckCausal(options, shape, lengths); !status.ok()) return status;
  std::map<int, Regions> regions;
  WindowPlanner planner(options);
  RegionItem item;
  for (const int length : lengths) {
    const auto [it, is_new] = regions.try_emplace(length);
    if (is_new) it->second = CausalRegions(shape, length);
    item.regions = &it->second;
    planner.Add(item);
    item.token_begin += length;
    item.landmark_begin += item.regions->num_chunks;
  }
  return planner.Finish(shape.chunk, shape.extension());
}

absl::StatusOr<WindowPlan> PlanSteps(const WindowOptions& options, const CausalEvaShape& shape,
                                     std::span<const CausalStep> steps) {
  if (absl::Status status = CheckSteps(options, shape, steps); !status.ok()) return status;
  WindowPlanner planner(options);
  for (const CausalStep& step : steps) planner.AddStep(shape, step);
  return planner.Finish(shape.chunk, shape.extension());
}

}  // namespace evaserve
