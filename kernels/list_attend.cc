#include "kernels/list_attend.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/regions.h"

namespace evaserve {
namespace {

absl::Status ValidateItem(const ListAttendParams& p, size_t index) {
  const ListAttendItem& item = p.items[index];
  if (item.query_begin < 0 || item.num_queries < 0 ||
      item.num_queries > p.num_queries - item.query_begin) {
    return absl::InvalidArgumentError(absl::StrCat("items[", index, "]: ", item.num_queries,
                                                   " queries from ", item.query_begin,
                                                   " on, must be in [0, ", p.num_queries, ")"));
  }
  if (item.keys.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("items[", index, "]: keys is empty, must have at least 1"));
  }
  for (const int32_t key : item.keys) {
    if (key >= 0 && key < p.num_keys) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("items[", index, "]: a key is ", key, ", must be in [0, ", p.num_keys, ")"));
  }
  return absl::OkStatus();
}

void AttendQuery(const ListAttendParams& p, const ListAttendItem& item, int64_t query, int head) {
  const int64_t column = int64_t{head} * p.head_dim;
  const float* q = p.q + query * p.q_stride + column;
  std::vector<double> weights;
  for (const int32_t key : item.keys) {
    const float* k = p.k + key * p.kv_stride + column;
    double dot = 0;
    for (int d = 0; d < p.head_dim; ++d) dot += double{q[d]} * k[d];
    weights.push_back(p.scale * dot);
  }
  const double max = *std::ranges::max_element(weights);
  double sum = 0;
  for (double& weight : weights) sum += weight = std::exp(weight - max);
  for (int d = 0; d < p.head_dim; ++d) {
    double x = 0;
    for (size_t j = 0; j < weights.size(); ++j) {
      x += weights[j] / sum * p.v[item.keys[j] * p.kv_stride + column + d];
    }
    p.out[query * p.out_stride + column + d] = static_cast<float>(x);
  }
}

}  // namespace

absl::Status Validate(const ListAttendParams& p) {
  if (absl::Status status = ValidateHeads(p.num_heads, p.head_dim); !status.ok()) return status;
  if (p.dtype == DType::kFloat16) {
    return absl::InvalidArgumentError("dtype is float16; allowed on the CPU: float32, bfloat16");
  }
  const int64_t row = int64_t{p.num_heads} * p.head_dim;
  for (const auto& [name, stride] : {std::pair{"q_stride", p.q_stride},
                                     {"kv_stride", p.kv_stride},
                                     {"out_stride", p.out_stride}}) {
    if (stride >= row) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(name, " is ", stride, ", must be at least ", row));
  }
  for (size_t i = 0; i < p.items.size(); ++i) {
    if (absl::Status status = ValidateItem(p, i); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status ListAttendReference(const ListAttendParams& params) {
  if (absl::Status status = Validate(params); !status.ok()) return status;
  for (const ListAttendItem& item : params.items) {
    for (int i = 0; i < item.num_queries; ++i) {
      for (int head = 0; head < params.num_heads; ++head) {
        AttendQuery(params, item, int64_t{item.query_begin} + i, head);
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace evaserve
