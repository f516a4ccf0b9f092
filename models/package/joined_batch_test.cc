#include "models/package/joined_batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "models/testing/status_matchers.h"

namespace evaserve {
namespace {

using ::testing::ElementsAre;

// x FP32 [rows, tokens, 2] and scale FP32 [rows] -> y FP32 [rows, tokens, 2], sum FP32 [rows].
PackageConfig TwoInputs() {
  return {{{"x", TensorType::kFp32, {-1, -1, 2}}, {"scale", TensorType::kFp32, {-1}}},
          {{"y", TensorType::kFp32, {-1, -1, 2}}, {"sum", TensorType::kFp32, {-1}}}};
}

JoinPlan Equal() { return MakeJoinPlan(TwoInputs(), {}).value(); }
JoinPlan Ragged() { return MakeJoinPlan(TwoInputs(), {{"x"}, {"y"}}).value(); }

// A request of `rows` rows of `tokens` tokens: numbers from `first` on.
class Request {
 public:
  Request(int64_t rows, int64_t tokens, float first) {
    for (int64_t i = 0; i < rows * tokens * 2; ++i) x_.push_back(first + static_cast<float>(i));
    scale_.assign(rows, first);
    inputs_ = {{{rows, tokens, 2}, View(x_)}, {{rows}, View(scale_)}};
  }
  Request(const Request&) = delete;

  const TensorModel::Inputs* inputs() const { return &inputs_; }

 private:
  static std::string_view View(const std::vector<float>& values) {
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
  }

  std::vector<float> x_, scale_;
  TensorModel::Inputs inputs_;
};

std::vector<float> Floats(const ProgramTensor& tensor, int64_t count) {
  const auto* data = reinterpret_cast<const float*>(tensor.data);
  return {data, data + count};
}

std::vector<float> Floats(const OutputTensor& tensor) {
  std::vector<float> values(tensor.data.size() / sizeof(float));
  std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
  return values;
}

ProgramTensor Output(std::vector<float>& values, std::vector<int64_t> shape) {
  return {TensorType::kFp32, std::move(shape), reinterpret_cast<std::byte*>(values.data())};
}

TEST(JoinedBatchTest, EqualShapesAreOneBatch) {
  const JoinPlan plan = Equal();
  const Request a(1, 2, 0), b(2, 2, 10);
  const TensorModel::Inputs* requests[] = {a.inputs(), b.inputs()};
  JoinedBatch batch(plan);

  const auto joined = batch.Join(requests);

  ASSERT_EQ(joined.size(), 2u);
  EXPECT_THAT(joined[0].shape, ElementsAre(3, 2, 2));
  EXPECT_THAT(Floats(joined[0], 12), ElementsAre(0, 1, 2, 3, 10, 11, 12, 13, 14, 15, 16, 17));
  EXPECT_THAT(joined[1].shape, ElementsAre(3));
  EXPECT_THAT(Floats(joined[1], 3), ElementsAre(0, 10, 10));
}

TEST(JoinedBatchTest, RaggedRowsLieOneAfterTheOtherWithTheirLengths) {
  const JoinPlan plan = Ragged();
  const Request a(1, 3, 0), b(2, 1, 10);
  const TensorModel::Inputs* requests[] = {a.inputs(), b.inputs()};
  JoinedBatch batch(plan);

  const auto joined = batch.Join(requests);

  ASSERT_EQ(joined.size(), 3u);
  EXPECT_THAT(joined[0].shape, ElementsAre(5, 2));
  EXPECT_THAT(Floats(joined[0], 10), ElementsAre(0, 1, 2, 3, 4, 5, 10, 11, 12, 13));
  EXPECT_THAT(joined[1].shape, ElementsAre(3));
  EXPECT_EQ(joined[2].type, TensorType::kInt64);
  EXPECT_THAT(joined[2].shape, ElementsAre(3));
  const auto* lengths = reinterpret_cast<const int64_t*>(joined[2].data);
  EXPECT_THAT(std::vector<int64_t>(lengths, lengths + 3), ElementsAre(3, 1, 1));
}

TEST(JoinedBatchTest, EachRequestGetsItsRowsOfTheOutputs) {
  const JoinPlan plan = Ragged();
  const Request a(1, 3, 0), b(2, 1, 10);
  const TensorModel::Inputs* requests[] = {a.inputs(), b.inputs()};
  JoinedBatch batch(plan);
  batch.Join(requests);
  std::vector<float> y = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, sum = {20, 21, 22};

  const auto split = batch.Split(std::vector{Output(y, {5, 2}), Output(sum, {3})});

  ASSERT_TRUE(split.ok()) << split.status();
  EXPECT_THAT((*split)[0][0].shape, ElementsAre(1, 3, 2));
  EXPECT_THAT(Floats((*split)[0][0]), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_THAT((*split)[1][0].shape, ElementsAre(2, 1, 2));
  EXPECT_THAT(Floats((*split)[1][0]), ElementsAre(7, 8, 9, 10));
  EXPECT_THAT(Floats((*split)[0][1]), ElementsAre(20));
  EXPECT_THAT(Floats((*split)[1][1]), ElementsAre(21, 22));
}

TEST(JoinedBatchTest, OutputsThatAreNotAsDeclaredAreErrors) {
  const JoinPlan plan = Equal();
  const Request a(2, 3, 0);
  const TensorModel::Inputs* requests[] = {a.inputs()};
  JoinedBatch batch(plan);
  batch.Join(requests);
  std::vector<float> y(18), sum(3);
  constexpr auto kInternal = absl::StatusCode::kInternal;

  EXPECT_THAT(batch.Split(std::vector{Output(y, {2, 3, 2})}).status(),
              IsError(kInternal, "gives 1 outputs, config.json declares 2"));
  EXPECT_THAT(batch.Split(std::vector{Output(y, {2, 3, 3}), Output(sum, {2})}).status(),
              IsError(kInternal, "output y", "FP32 [2,3,3]", "FP32 [2,-1,2]"));
  EXPECT_THAT(batch.Split(std::vector{Output(y, {2, 3, 2}), Output(sum, {3})}).status(),
              IsError(kInternal, "output sum", "[3]", "[2]"));
  ProgramTensor other = Output(sum, {2});
  other.type = TensorType::kInt32;
  EXPECT_THAT(batch.Split(std::vector{Output(y, {2, 3, 2}), other}).status(),
              IsError(kInternal, "INT32 [2]", "FP32 [2]"));
}

TEST(JoinPlanTest, OnlyWhatAgreesGoesTogether) {
  const Request a(1, 2, 0), b(1, 3, 0), c(4, 2, 0);
  const TensorModel::Inputs* requests[] = {a.inputs(), b.inputs(), c.inputs()};
  EXPECT_THAT(GroupByShape(Equal(), requests), ElementsAre(ElementsAre(0, 2), ElementsAre(1)));
  EXPECT_THAT(GroupByShape(Ragged(), requests), ElementsAre(ElementsAre(0, 1, 2)));
}

TEST(JoinPlanTest, TokensCountWhereLengthsDiffer) {
  const Request a(2, 3, 0);
  EXPECT_EQ(NumRaggedTokens(Ragged(), *a.inputs()), 6);
  EXPECT_EQ(NumRaggedTokens(Equal(), *a.inputs()), 0);
}

TEST(JoinPlanTest, RefusesRowsWithoutTokens) {
  const Request empty(2, 0, 0);
  EXPECT_THAT(CheckInputs(Ragged(), *empty.inputs()),
              IsError(kInvalid, "x: got shape [2,0,2]", "at least 1 token"));
  EXPECT_TRUE(CheckInputs(Equal(), *empty.inputs()).ok());
}

TEST(JoinPlanTest, RaggedInputsOfARequestHaveRowsOfOneLength) {
  const PackageConfig config = {
      {{"a", TensorType::kInt64, {-1, -1}}, {"b", TensorType::kInt64, {-1, -1}}},
      {{"y", TensorType::kFp32, {-1}}}};
  const JoinPlan plan = MakeJoinPlan(config, {{"a", "b"}, {}}).value();
  const std::string numbers(8 * 8, '\0');
  const TensorModel::Inputs inputs = {{{2, 3}, std::string_view(numbers).substr(16)},
                                      {{2, 4}, numbers}};
  EXPECT_THAT(CheckInputs(plan, inputs), IsError(kInvalid, "b: got shape [2,4]", "3 tokens"));
}

// Dimensions without data could be of any size, and so would be what is made of them.
TEST(JoinPlanTest, RaggedInputsHaveData) {
  const PackageConfig config = {{{"a", TensorType::kFp32, {-1, -1, -1}}},
                                {{"y", TensorType::kFp32, {-1}}}};
  const JoinPlan plan = MakeJoinPlan(config, {{"a"}, {}}).value();
  const TensorModel::Inputs inputs = {{{int64_t{1} << 40, int64_t{1} << 40, 0}, ""}};
  EXPECT_EQ(NumRaggedTokens(plan, inputs), 0);
  EXPECT_THAT(CheckInputs(plan, inputs), IsError(kInvalid, "a: got shape", "at least 1 token"));
}

TEST(JoinPlanTest, ABoolIsZeroOrOne) {
  const PackageConfig config = {{{"a", TensorType::kBool, {-1, 2}}},
                                {{"y", TensorType::kFp32, {-1}}}};
  const JoinPlan plan = MakeJoinPlan(config, {}).value();
  EXPECT_TRUE(CheckInputs(plan, {{{1, 2}, std::string_view("\0\1", 2)}}).ok());
  EXPECT_THAT(CheckInputs(plan, {{{1, 2}, std::string_view("\0\2", 2)}}), IsError(kInvalid, "a: "));
}

TEST(JoinPlanTest, NamesTheTensorThatCannotBeRagged) {
  EXPECT_THAT(MakeJoinPlan(TwoInputs(), {{"z"}, {}}).status(),
              IsError(kInvalid, "\"ragged\"", "input \"z\"", "x, scale"));
  EXPECT_THAT(MakeJoinPlan(TwoInputs(), {{"scale"}, {}}).status(),
              IsError(kInvalid, "input \"scale\" is [-1]", "-1, -1"));
  EXPECT_THAT(MakeJoinPlan(TwoInputs(), {{}, {"y"}}).status(), IsError(kInvalid, "no inputs"));
}

}  // namespace
}  // namespace evaserve
