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
  std::vector<T> values(count);
  std::memcpy(values.data(), data, values.size() * sizeof(T));
  return {values.begin(), values.end()};
}

std::vector<double> ScoresOfItem(const OutputTensor& tensor, TensorType type, int64_t item,
                                 int64_t count) {
  const char* data = tensor.data.data() + item * count * ElementBytes(type);
  return type == TensorType::kFp32 ? Scores<float>(data, count) : Scores<double>(data, count);
}

// The indices of the highest scores.
std::vector<int64_t> Highest(const std::vector<double>& scores, int64_t num_classes) {
  std::vector<int64_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  const auto rank = [&](int64_t i) {
    return std::isnan(scores[i]) ? -std::numeric_limits<double>::infinity() : scores[i];
  };
  std::partial_sort(
      order.begin(), order.begin() + num_classes, order.end(),
      [&](int64_t a, int64_t b) { return rank(a) != rank(b) ? rank(a) > rank(b) : a < b; });
  order.resize(num_classes);
  return order;
}

}  // namespace

bool CanClassify(TensorType type) { return type == TensorType::kFp32 || type == TensorType::kFp64; }

OutputTensor Classify(const OutputTensor& scores, TensorType type,
                      const std::vector<std::string>& labels, int64_t num_classes) {
  const int64_t batch = scores.shape.front();
  const int64_t count = std::accumulate(scores.shape.begin() + 1, scores.shape.end(), int64_t{1},
                                        std::multiplies<>());
  num_classes = std::min(num_classes, count);
  OutputTensor classes{.shape = {batch, num_classes}, .data = {}};
  for (int64_t item = 0; item < batch; ++item) {
    const std::vector<double> of_item = ScoresOfItem(scores, type, item, count);
    for (const int64_t index : Highest(of_item, num_classes)) {
      std::string text = absl::StrCat(std::to_string(of_item[index]), ":", index);
      if (index < std::ssize(labels)) absl::StrAppend(&text, ":", labels[index]);
      AppendRawBytes(text, classes.data);
    }
  }
  return classes;
}

}  // namespace evaserve
