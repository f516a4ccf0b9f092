#include "kernels/regions.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 24;
// Entries of one table: a quarter of a gibibyte. Only margins much wider than chunks come near it.
constexpr int64_t kMaxEntries = int64_t{1} << 26;

absl::Status Refuse(const char* field, int value, const std::string& allowed) {
  return absl::InvalidArgumentError(absl::StrCat(field, " is ", value, ", must be ", allowed));
}

absl::Status ValidateSides(const RegionShape& shape) {
  if (shape.height < 1) return Refuse("height", shape.height, "at least 1");
  if (shape.width < 1) return Refuse("width", shape.width, "at least 1");
  if (!shape.is_2d && shape.height != 1) return Refuse("height", shape.height, "1 in a sequence");
  if (shape.window < 1) return Refuse("window", shape.window, "at least 1");
  if (shape.num_landmarks < 1) return Refuse("num_landmarks", shape.num_landmarks, "at least 1");
  if (int64_t{shape.height} * shape.width > kMaxTokens || shape.window > kMaxTokens) {
    return absl::InvalidArgumentError(absl::StrCat("height, width and window are ", shape.height,
                                                   ", ", shape.width, " and ", shape.window,
                                                   ": more than ", kMaxTokens, " tokens"));
  }
  if (!shape.is_2d) return absl::OkStatus();
  const std::string multiple = absl::StrCat("a multiple of window, ", shape.window);
  if (shape.height % shape.window != 0) return Refuse("height", shape.height, multiple);
  if (shape.width % shape.window != 0) return Refuse("width", shape.width, multiple);
  return absl::OkStatus();
}

// The indices [begin, end) of one axis; -1 outside of [0, size).
struct Range {
  int begin = 0, end = 0, size = 0;

  int at(int i) const { return i >= 0 && i < size ? i : -1; }
};

void AppendPlaces(Range rows, Range columns, std::vector<int32_t>& table) {
  for (int r = rows.begin; r < rows.end; ++r) {
    for (int c = columns.begin; c < columns.end; ++c) {
      const bool inside = rows.at(r) >= 0 && columns.at(c) >= 0;
      table.push_back(inside ? r * columns.size + c : -1);
    }
  }
}

// The squares of `side` tokens, or pieces of a sequence, each with a margin.
class Cutter {
 public:
  Cutter(const RegionShape& shape, int side)
      : shape_(shape),
        side_(side),
        rows_(shape.is_2d ? shape.height / side : 1),
        columns_((shape.is_2d ? shape.width : shape.num_padded()) / side) {}

  int num_pieces() const { return rows_ * columns_; }
  int64_t num_places(int margin) const {
    const int64_t places = side_ + 2 * int64_t{margin};
    return shape_.is_2d ? places * places : places;
  }

  std::vector<int32_t> Table(int margin) const {
    std::vector<int32_t> table;
    table.reserve(num_pieces() * num_places(margin));
    for (int r = 0; r < rows_; ++r) {
      for (int c = 0; c < columns_; ++c) {
        const Range rows = {r * side_ - margin, (r + 1) * side_ + margin, shape_.height};
        const Range columns = {c * side_ - margin, (c + 1) * side_ + margin, shape_.width};
        AppendPlaces(shape_.is_2d ? rows : Range{0, 1, 1}, columns, table);
      }
    }
    return table;
  }

 private:
  const RegionShape& shape_;
  const int side_;
  const int rows_, columns_;  // of pieces
};

absl::Status ValidateChunks(const RegionShape& shape) {
  const int chunk = shape.chunk();
  const int height = shape.is_2d ? shape.height : chunk;
  const int width = shape.is_2d ? shape.width : shape.num_padded();
  if (chunk > std::min(height, width)) {
    return Refuse(
        "num_landmarks", shape.num_landmarks,
        absl::StrCat("such that chunks of ", chunk, " fit a map of ", height, " x ", width));
  }
  if (shape.overlap || (height % chunk == 0 && width % chunk == 0)) return absl::OkStatus();
  const std::string tokens = shape.is_2d ? absl::StrCat(height, " x ", width) : absl::StrCat(width);
  return Refuse("num_landmarks", shape.num_landmarks,
                absl::StrCat("such that chunks of ", chunk, " divide ", tokens,
                             " tokens, unless there is overlap"));
}

absl::Status ValidateTable(const std::vector<int32_t>& table, int64_t count, int64_t places,
                           int num_tokens, const char* name) {
  if (count < 0 || places < 1 || static_cast<int64_t>(table.size()) != count * places) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " has ", table.size(), " entries, must have ", count, " x ", places));
  }
  for (size_t i = 0; i < table.size(); ++i) {
    if (table[i] < -1 || table[i] >= num_tokens) {
      return absl::InvalidArgumentError(absl::StrCat(name, "[", i, "] is ", table[i],
                                                     ", must be -1 or in [0, ", num_tokens, ")"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

int RegionShape::chunk() const {
  const int per_landmark = num_padded() / num_landmarks;
  if (!is_2d) return per_landmark;
  int side = static_cast<int>(std::sqrt(per_landmark));
  // A root next to a square must not depend on how sqrt rounds.
  while ((side + 1) * (side + 1) <= per_landmark) ++side;
  while (side * side > per_landmark) --side;
  return side;
}

absl::Status Validate(const RegionShape& shape) {
  if (absl::Status status = ValidateSides(shape); !status.ok()) return status;
  const int num_padded = shape.num_padded();
  if (num_padded < shape.num_landmarks) {
    return Refuse("num_landmarks", shape.num_landmarks,
                  absl::StrCat("at most the number of tokens, ", num_padded));
  }
  if (absl::Status status = ValidateChunks(shape); !status.ok()) return status;
  for (const int side : {shape.window, shape.chunk()}) {
    const Cutter cutter(shape, side);
    const int64_t entries = cutter.num_pieces() * cutter.num_places(shape.extension());
    if (entries > kMaxEntries) {
      return Refuse(
          "window", shape.window,
          absl::StrCat("such that the tokens of all windows and chunks with their margins "
                       "are at most ",
                       kMaxEntries, ", not ", entries));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Regions> MakeRegions(const RegionShape& shape) {
  if (absl::Status status = Validate(shape); !status.ok()) return status;
  const Cutter windows(shape, shape.window), chunks(shape, shape.chunk());
  const int margin = shape.extension();
  Regions regions;
  regions.num_tokens = shape.num_tokens();
  regions.num_windows = windows.num_pieces();
  regions.window_queries = static_cast<int>(windows.num_places(0));
  regions.window_keys = static_cast<int>(windows.num_places(margin));
  regions.num_chunks = chunks.num_pieces();
  regions.chunk_members = static_cast<int>(chunks.num_places(margin));
  regions.queries = windows.Table(0);
  regions.keys = windows.Table(margin);
  regions.members = chunks.Table(margin);
  return regions;
}

absl::Status Validate(const Regions& regions) {
  const struct {
    const std::vector<int32_t>& table;
    int count, places;
    const char* name;
  } tables[] = {
      {regions.queries, regions.num_windows, regions.window_queries, "queries"},
      {regions.keys, regions.num_windows, regions.window_keys, "keys"},
      {regions.members, regions.num_chunks, regions.chunk_members, "members"},
  };
  for (const auto& t : tables) {
    absl::Status status = ValidateTable(t.table, t.count, t.places, regions.num_tokens, t.name);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status ValidateItems(std::span<const RegionItem> items) {
  const Regions* valid = nullptr;
  for (size_t i = 0; i < items.size(); ++i) {
    const RegionItem& item = items[i];
    if (item.regions == nullptr || item.token_begin < 0 || item.landmark_begin < 0) {
      return absl::InvalidArgumentError(absl::StrCat("items[", i, "] has no regions or begins at ",
                                                     item.token_begin, ", ", item.landmark_begin));
    }
    if (item.regions == valid) continue;
    if (absl::Status status = Validate(*item.regions); !status.ok()) return status;
    valid = item.regions;
  }
  return absl::OkStatus();
}

absl::Status ValidateHeads(int num_heads, int head_dim) {
  if (num_heads < 1) return Refuse("num_heads", num_heads, "at least 1");
  if (head_dim < 4 || head_dim > kMaxEvaHeadDim || head_dim % 4 != 0) {
    return Refuse("head_dim", head_dim,
                  absl::StrCat("a multiple of 4 in [4, ", kMaxEvaHeadDim, "]"));
  }
  return absl::OkStatus();
}

}  // namespace evaserve
