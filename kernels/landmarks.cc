#include "kernels/landmarks.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/adaptive_norm.h"

namespace evaserve {
namespace {

using Row = std::vector<double>;

absl::Status ValidateMap(const AdaptiveMap& map, int head_dim, const char* field) {
  const PackedWeight& weight = *map.weight;
  if (weight.dtype() != DType::kFloat32 || weight.out_features() != head_dim ||
      weight.in_features() != head_dim) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, " is ", std::string(Name(weight.dtype())), " ", weight.out_features(),
                     " x ", weight.in_features(), ", must be float32 ", head_dim, " x ", head_dim));
  }
  if (map.bias == nullptr || (map.norm_weight == nullptr) != (map.norm_bias == nullptr)) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, " has no bias, or one part of a norm without the other"));
  }
  return absl::OkStatus();
}

// The mean over all places of a chunk, of which those outside are zero.
Row Mean(const LandmarksParams& p, const RegionItem& item, const float* rows, int chunk, int head) {
  const auto members = item.regions->members_of(chunk);
  Row mean(p.head_dim);
  for (const int32_t token : members) {
    if (token < 0) continue;
    const float* row = rows + (item.token_begin + token) * p.stride + int64_t{head} * p.head_dim;
    for (int d = 0; d < p.head_dim; ++d) mean[d] += row[d];
  }
  for (double& x : mean) x /= static_cast<double>(members.size());
  return mean;
}

Row Map(const AdaptiveMap& map, const Row& x) {
  Row y(x.size());
  for (size_t o = 0; o < y.size(); ++o) {
    y[o] = map.bias[o];
    for (size_t i = 0; i < x.size(); ++i) y[o] += map.weight->at(o, i) * x[i];
  }
  if (map.norm_weight == nullptr) return y;
  const double size = static_cast<double>(y.size());
  double mean = 0, variance = 0;
  for (const double value : y) mean += value / size;
  for (const double value : y) variance += (value - mean) * (value - mean) / size;
  for (size_t o = 0; o < y.size(); ++o) {
    y[o] = (y[o] - mean) / std::sqrt(variance + kAdaptiveNormEps) * map.norm_weight[o] +
           map.norm_bias[o];
  }
  return y;
}

Row Value(const LandmarksParams& p, const RegionItem& item, int chunk, int head, const Row& mu) {
  std::vector<int64_t> rows;
  for (const int32_t token : item.regions->members_of(chunk)) {
    if (token >= 0) rows.push_back((item.token_begin + token) * p.stride + head * p.head_dim);
  }
  Row weights;
  for (const int64_t row : rows) {
    double logit = 0;
    for (int d = 0; d < p.head_dim; ++d) {
      const double k = p.k[row + d];
      logit += mu[d] * k - k * k / 2;
    }
    weights.push_back(logit * p.scale);
  }
  double max = -INFINITY, sum = 0;
  for (const double weight : weights) max = std::max(max, weight);
  for (double& weight : weights) sum += weight = std::exp(weight - max);

  Row beta(p.head_dim);
  for (size_t j = 0; j < rows.size(); ++j) {
    for (int d = 0; d < p.head_dim; ++d) beta[d] += weights[j] / sum * p.v[rows[j] + d];
  }
  return beta;
}

void Landmark(const LandmarksParams& p, const RegionItem& item, int head, int chunk) {
  const Row k_bar = Map(p.map_k, Mean(p, item, p.k, chunk, head));
  Row mu(p.head_dim);
  if (p.map_q.weight != nullptr) {
    const Row q_bar = Map(p.map_q, Mean(p, item, p.q, chunk, head));
    for (int d = 0; d < p.head_dim; ++d) mu[d] = p.mu_scale * (q_bar[d] + k_bar[d]);
  }
  const Row beta = Value(p, item, chunk, head, mu);
  const int64_t row = item.landmark_begin * p.num_heads + int64_t{head} * item.regions->num_chunks;
  for (int d = 0; d < p.head_dim; ++d) {
    p.k_bar[(row + chunk) * p.head_dim + d] = static_cast<float>(k_bar[d]);
    p.beta[(row + chunk) * p.head_dim + d] = static_cast<float>(beta[d]);
  }
}

}  // namespace

absl::Status Validate(const LandmarksParams& p) {
  if (absl::Status status = ValidateHeads(p.num_heads, p.head_dim); !status.ok()) return status;
  if (p.stride < int64_t{p.num_heads} * p.head_dim) {
    return absl::InvalidArgumentError(absl::StrCat("stride is ", p.stride, ", must be at least ",
                                                   int64_t{p.num_heads} * p.head_dim));
  }
  if (p.map_k.weight == nullptr) return absl::InvalidArgumentError("map_k has no weight");
  if (absl::Status status = ValidateMap(p.map_k, p.head_dim, "map_k"); !status.ok()) return status;
  if (p.map_q.weight != nullptr) {
    absl::Status status = ValidateMap(p.map_q, p.head_dim, "map_q");
    if (!status.ok()) return status;
  }
  return ValidateItems(p.items);
}

absl::Status LandmarksReference(const LandmarksParams& params) {
  if (absl::Status status = Validate(params); !status.ok()) return status;
  for (const RegionItem& item : params.items) {
    for (int head = 0; head < params.num_heads; ++head) {
      for (int c = 0; c < item.regions->num_chunks; ++c) Landmark(params, item, head, c);
    }
  }
  return absl::OkStatus();
}

}  // namespace evaserve
