#include "kernels/relative_bias.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

absl::Status ValidateSize(const char* name, size_t size, int entries, int num_heads) {
  if (num_heads >= 1 && static_cast<int64_t>(size) == int64_t{entries} * num_heads) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(name, " has ", size, " numbers, must have ",
                                                 entries, " x ", num_heads, " heads"));
}

// `queries` and `keys` are as large as a product of two ints.
absl::Status ValidateBiasSize(int num_heads, int64_t queries, int64_t keys) {
  const double numbers =
      static_cast<double>(num_heads) * static_cast<double>(queries) * static_cast<double>(keys);
  if (numbers <= static_cast<double>(kMaxBiasNumbers)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("a bias of ", num_heads, " heads x ", queries,
                                                 " queries x ", keys, " keys, must have at most ",
                                                 kMaxBiasNumbers, " numbers"));
}

// Buckets of one distance each, on each side of a query.
int NumExact(const T5Buckets& buckets) {
  return (buckets.is_causal ? buckets.num_buckets : buckets.num_buckets / 2) / 2;
}

// By num_queries - 1 + relative.
absl::StatusOr<std::vector<int>> ReachableBuckets(const T5Buckets& buckets, int num_queries,
                                                  int num_keys) {
  std::vector<int> reachable;
  for (int relative = 1 - num_queries; relative < num_keys; ++relative) {
    const int bucket = T5Bucket(relative, buckets);
    if (bucket < 0 || bucket >= buckets.num_buckets) {
      return absl::InvalidArgumentError(absl::StrCat(
          "max_distance is ", buckets.max_distance, ", must be above ", NumExact(buckets),
          ": there is no bucket for places ", std::abs(relative), " apart"));
    }
    reachable.push_back(bucket);
  }
  return reachable;
}

}  // namespace

T5Buckets T5BucketsFor(int window, int extension, bool is_causal) {
  const int reach = window + extension;
  return {std::max(std::min(reach / 2, 64), 16), reach, is_causal};
}

int T5Bucket(int relative, const T5Buckets& buckets) {
  const int num = buckets.is_causal ? buckets.num_buckets : buckets.num_buckets / 2;
  const int base = !buckets.is_causal && relative > 0 ? num : 0;
  const int distance = buckets.is_causal ? std::max(-relative, 0) : std::abs(relative);
  const int exact = NumExact(buckets);
  if (distance < exact) return base + distance;
  if (buckets.max_distance == exact) return -1;  // a division by nothing
  const float range = static_cast<float>(std::log(double(buckets.max_distance) / exact));
  const float beyond = std::log(static_cast<float>(distance) / static_cast<float>(exact)) / range *
                       static_cast<float>(num - exact);
  // Also where nothing is exact and this is no number.
  if (!(beyond < static_cast<float>(num - exact))) return base + num - 1;
  return base + exact + static_cast<int>(beyond);
}

absl::StatusOr<std::vector<float>> T5Bias(std::span<const float> embedding, int num_heads,
                                          float scale, const T5Buckets& buckets, int num_queries,
                                          int num_keys) {
  absl::Status status = ValidateSize("embedding", embedding.size(), buckets.num_buckets, num_heads);
  if (!status.ok()) return status;
  status = ValidateBiasSize(num_heads, num_queries, num_keys);
  if (!status.ok()) return status;
  const absl::StatusOr<std::vector<int>> reachable =
      ReachableBuckets(buckets, num_queries, num_keys);
  if (!reachable.ok()) return reachable.status();
  std::vector<float> bias;
  bias.reserve(size_t(num_heads) * num_queries * num_keys);
  for (int h = 0; h < num_heads; ++h) {
    for (int i = 0; i < num_queries; ++i) {
      for (int j = 0; j < num_keys; ++j) {
        bias.push_back(scale * embedding[(*reachable)[num_queries - 1 + j - i] * num_heads + h]);
      }
    }
  }
  return bias;
}

absl::StatusOr<std::vector<float>> MapBias(std::span<const float> table, int num_heads, int window,
                                           int extension) {
  const int keys = window + 2 * extension;
  absl::Status status = ValidateBiasSize(num_heads, int64_t{window} * window, int64_t{keys} * keys);
  if (!status.ok()) return status;
  // Differences run over [0, last].
  const int last = 2 * (window + extension - 1);
  status = ValidateSize("table", table.size(), last * (keys + 1) + 1, num_heads);
  if (!status.ok()) return status;
  std::vector<float> bias;
  bias.reserve(size_t(num_heads) * window * window * keys * keys);
  for (int h = 0; h < num_heads; ++h) {
    for (int query = 0; query < window * window; ++query) {
      for (int key = 0; key < keys * keys; ++key) {
        const int row = query / window - key / keys + keys - 1;
        const int column = query % window - key % keys + keys - 1;
        bias.push_back(table[(row * keys + column) * num_heads + h]);
      }
    }
  }
  return bias;
}

}  // namespace evaserve
