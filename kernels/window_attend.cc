#include "kernels/window_attend.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

// Something that a query sees.
struct Column {
  const float* key = nullptr;
  const float* value = nullptr;
  double bias = 0;
};

// What the query at `place` of a window sees.
std::vector<Column> Visible(const WindowAttendParams& p, const RegionItem& item, int head,
                            int window, int place) {
  const Regions& regions = *item.regions;
  std::vector<Column> columns;
  const auto keys = regions.keys_of(window);
  for (size_t j = 0; j < keys.size(); ++j) {
    if (keys[j] < 0) continue;
    const int64_t row = (item.token_begin + keys[j]) * p.stride + int64_t{head} * p.head_dim;
    const int64_t pair = (int64_t{head} * regions.window_queries + place) * regions.window_keys;
    columns.push_back({p.k + row, p.v + row, p.bias == nullptr ? 0. : p.bias[pair + j]});
  }
  const int64_t first = item.landmark_begin * p.num_heads + int64_t{head} * regions.num_chunks;
  for (int c = 0; c < regions.num_chunks; ++c) {
    const int64_t row = (first + c) * p.head_dim;
    columns.push_back({p.k_bar + row, p.beta + row, 0.});
  }
  return columns;
}

void AttendQuery(const WindowAttendParams& p, int64_t token, int head,
                 const std::vector<Column>& columns) {
  const float* q = p.q + token * p.stride + int64_t{head} * p.head_dim;
  std::vector<double> weights;
  for (const Column& column : columns) {
    double dot = 0;
    for (int d = 0; d < p.head_dim; ++d) dot += double{q[d]} * column.key[d];
    weights.push_back(p.scale * dot + column.bias);
  }
  const double max = *std::max_element(weights.begin(), weights.end());
  double sum = 0;
  for (double& weight : weights) sum += weight = std::exp(weight - max);

  float* out = p.out + token * p.out_stride + int64_t{head} * p.head_dim;
  for (int d = 0; d < p.head_dim; ++d) {
    double x = 0;
    for (size_t j = 0; j < columns.size(); ++j) x += weights[j] / sum * columns[j].value[d];
    out[d] = static_cast<float>(x);
  }
  if (p.lse != nullptr) {
    p.lse[token * p.num_heads + head] = static_cast<float>(max + std::log(sum));
  }
}

absl::Status ValidateWindows(const WindowAttendParams& p) {
  for (const RegionItem& item : p.items) {
    const Regions& regions = *item.regions;
    const Regions& first = *p.items[0].regions;
    // Otherwise a query could see nothing.
    if (regions.num_chunks == 0 && std::ranges::count(regions.keys, -1) > 0) {
      return absl::InvalidArgumentError(
          "num_chunks is 0, must be at least 1 where a window has places outside of the tokens");
    }
    if (p.bias != nullptr && (regions.window_queries != first.window_queries ||
                              regions.window_keys != first.window_keys)) {
      return absl::InvalidArgumentError(absl::StrCat("one bias for windows of ",
                                                     first.window_queries, " and of ",
                                                     regions.window_queries, " queries"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Validate(const WindowAttendParams& p) {
  if (absl::Status status = ValidateHeads(p.num_heads, p.head_dim); !status.ok()) return status;
  if (p.dtype == DType::kFloat16) {
    return absl::InvalidArgumentError("dtype is float16; allowed on the CPU: float32, bfloat16");
  }
  const int64_t row = int64_t{p.num_heads} * p.head_dim;
  if (p.stride < row || p.out_stride < row) {
    return absl::InvalidArgumentError(absl::StrCat("stride and out_stride are ", p.stride, " and ",
                                                   p.out_stride, ", must be at least ", row));
  }
  if (absl::Status status = ValidateItems(p.items); !status.ok()) return status;
  return ValidateWindows(p);
}

absl::Status WindowAttendReference(const WindowAttendParams& params) {
  if (absl::Status status = Validate(params); !status.ok()) return status;
  for (const RegionItem& item : params.items) {
    for (int window = 0; window < item.regions->num_windows; ++window) {
      const auto queries = item.regions->queries_of(window);
      for (int place = 0; place < item.regions->window_queries; ++place) {
        if (queries[place] < 0) continue;
        for (int head = 0; head < params.num_heads; ++head) {
          AttendQuery(params, item.token_begin + queries[place], head,
                      Visible(params, item, head, window, place));
        }
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace evaserve
