#include "server/rpc/classification.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "server/rpc/infer_codec.h"

namespace evaserve {
namespace {

using ::testing::ElementsAre;

template <typename T>
OutputTensor Tensor(std::vector<int64_t> shape, const std::vector<T>& values) {
  return {std::move(shape),
          std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T))};
}

std::vector<std::string> TextsOf(const OutputTensor& tensor) {
  const auto texts = DecodeRawBytes("x", tensor.data, tensor.shape[0] * tensor.shape[1]);
  EXPECT_TRUE(texts.ok()) << texts.status();
  return {texts->begin(), texts->end()};
}

TEST(ClassificationTest, GivesTheHighestOfEachItem) {
  const auto scores = Tensor<float>({2, 3}, {0.5, -1, 2, 3, 1, 2.25});
  const OutputTensor classes = Classify(scores, TensorType::kFp32, {"a", "b", "c"}, 2);
  EXPECT_THAT(classes.shape, ElementsAre(2, 2));
  EXPECT_THAT(TextsOf(classes),
              ElementsAre("2.000000:2:c", "0.500000:0:a", "3.000000:0:a", "2.250000:2:c"));
}

TEST(ClassificationTest, GivesNoMoreThanThereAre) {
  const OutputTensor classes =
      Classify(Tensor<float>({1, 2}, {0, 1}), TensorType::kFp32, {}, int64_t{1} << 62);
  EXPECT_THAT(classes.shape, ElementsAre(1, 2));
  EXPECT_THAT(TextsOf(classes), ElementsAre("1.000000:1", "0.000000:0"));
}

TEST(ClassificationTest, TakesTheFirstAmongEqualsAndNaNLast) {
  const auto scores = Tensor<double>({1, 2, 2}, {NAN, 1, 1, -INFINITY});
  EXPECT_THAT(TextsOf(Classify(scores, TensorType::kFp64, {}, 3)),
              ElementsAre("1.000000:1", "1.000000:2", "nan:0"));
}

TEST(ClassificationTest, GivesNothingForNoClasses) {
  const OutputTensor classes = Classify(Tensor<float>({2, 0}, {}), TensorType::kFp32, {}, 3);
  EXPECT_THAT(classes.shape, ElementsAre(2, 0));
  EXPECT_EQ(classes.data, "");
}

}  // namespace
}  // namespace evaserve
