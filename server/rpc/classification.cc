#include "server/rpc/classification.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "server/rpc/infer_codec.h"

namespace evaserve {
namespace {

template <typename T>
std::vector<double> Scores(const char* data, int64_t count) {
  if (count == 0) return {};  // memcpy wants a place even for nothing
  std::vector<T> values(count);
  std::memcpy(values.data(), data, values.size() * sizeof(T));
  return {values.begin(), values.end()};
}

int64_t ItemSize(const OutputTensor& tensor) {
  return std::accumulate(tensor.shape.begin() + 1, tensor.shape.end(), int64_t{1},
                         std::multiplies<>());
}

}  // namespace

std::vector<double> ScoresOfItem(const OutputTensor& scores, TensorType type, int64_t item) {
  const int64_t count = ItemSize(scores);
  const char* data = scores.data.data() + item * count * ElementBytes(type);
  return type == TensorType::kFp32 ? Scores<float>(data, count) : Scores<double>(data, count);
}

std::vector<int64_t> Highest(const std::vector<double>& scores, int64_t count) {
  std::vector<int64_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  count = std::min(count, std::ssize(order));
  const auto rank = [&](int64_t i) {
    return std::isnan(scores[i]) ? -std::numeric_limits<double>::infinity() : scores[i];
  };
  std::partial_sort(order.begin(), order.begin() + count, order.end(), [&](int64_t a, int64_t b) {
    return rank(a) != rank(b) ? rank(a) > rank(b) : a < b;
  });
  order.resize(count);
  return order;
}

bool CanClassify(TensorType type) { return type == TensorType::kFp32 || type == TensorType::kFp64; }

OutputTensor Classify(const OutputTensor& scores, TensorType type,
                      const std::vector<std::string>& labels, int64_t num_classes) {
  OutputTensor classes{.shape = {scores.shape.front(), std::min(num_classes, ItemSize(scores))},
                       .data = {}};
  for (int64_t item = 0; item < scores.shape.front(); ++item) {
    const std::vector<double> of_item = ScoresOfItem(scores, type, item);
    for (const int64_t index : Highest(of_item, num_classes)) {
      std::string text = absl::StrCat(std::to_string(of_item[index]), ":", index);
      if (index < std::ssize(labels)) absl::StrAppend(&text, ":", labels[index]);
      AppendRawBytes(text, classes.data);
    }
  }
  return classes;
}

}  // namespace evaserve
