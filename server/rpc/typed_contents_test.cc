#include "server/rpc/typed_contents.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "server/rpc/infer_test_util.h"
#include "server/rpc/tensor_plan.h"

namespace evaserve {
namespace {

using inference::ModelInferRequest;
using ::testing::HasSubstr;

// Typed contents of one input.
struct TypedCase {
  const char* name;
  TensorType type;
  void (*fill)(inference::InferTensorContents& contents);
  std::string raw;      // what comes of two elements, or
  const char* message;  // why not
};

class TypedContentsTest : public ::testing::TestWithParam<TypedCase> {};

TEST_P(TypedContentsTest, BecomeRawOrAreRefused) {
  const TypedCase& one = GetParam();
  const TensorModelInfo info{.inputs = {{"x", one.type, {-1}}}, .outputs = {{"y"}}};
  ModelInferRequest request;
  one.fill(*AddInput("x", Name(one.type), {2}, request).mutable_contents());

  const auto plan = PlanTensors(request, info, TimePoint::max());

  if (one.message == nullptr) {
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(plan->inputs[0].data, one.raw);
  } else {
    EXPECT_TRUE(absl::IsInvalidArgument(plan.status())) << plan.status();
    EXPECT_THAT(std::string(plan.status().message()), HasSubstr(one.message));
  }
}

using Contents = inference::InferTensorContents;

INSTANTIATE_TEST_SUITE_P(
    All, TypedContentsTest,
    ::testing::Values(
        TypedCase{"Bool", TensorType::kBool,
                  [](Contents& c) {
                    c.add_bool_contents(true);
                    c.add_bool_contents(false);
                  },
                  std::string("\1\0", 2)},
        TypedCase{"Int8", TensorType::kInt8,
                  [](Contents& c) {
                    c.add_int_contents(-128);
                    c.add_int_contents(127);
                  },
                  RawOf<int8_t>({-128, 127})},
        TypedCase{"Uint16", TensorType::kUint16,
                  [](Contents& c) {
                    c.add_uint_contents(0);
                    c.add_uint_contents(65535);
                  },
                  RawOf<uint16_t>({0, 65535})},
        TypedCase{"Int64", TensorType::kInt64,
                  [](Contents& c) {
                    c.add_int64_contents(-1);
                    c.add_int64_contents(int64_t{1} << 40);
                  },
                  RawOf<int64_t>({-1, int64_t{1} << 40})},
        TypedCase{"Fp64", TensorType::kFp64,
                  [](Contents& c) {
                    c.add_fp64_contents(0.1);
                    c.add_fp64_contents(-0.0);
                  },
                  RawOf<double>({0.1, -0.0})},
        TypedCase{"OutOfRange", TensorType::kInt8,
                  [](Contents& c) {
                    c.add_int_contents(1);
                    c.add_int_contents(128);
                  },
                  "", "x: got 128 in int_contents, allowed for INT8 is -128 to 127"},
        TypedCase{"TooMany", TensorType::kInt32,
                  [](Contents& c) {
                    for (int i = 0; i < 3; ++i) c.add_int_contents(i);
                  },
                  "", "x: got 3 elements in int_contents"},
        TypedCase{"AnotherFieldToo", TensorType::kInt32,
                  [](Contents& c) {
                    for (int i = 0; i < 2; ++i) c.add_int_contents(i);
                    c.add_fp32_contents(1);
                  },
                  "", "x: got 2 elements in int_contents and 1 in others"},
        TypedCase{"OtherField", TensorType::kInt32,
                  [](Contents& c) {
                    for (int i = 0; i < 2; ++i) c.add_fp32_contents(1);
                  },
                  "", "x: got 0 elements in int_contents and 2 in others"},
        TypedCase{"None", TensorType::kInt32, [](Contents&) {}, "", "x: got 0 elements"},
        TypedCase{"Fp16", TensorType::kFp16, [](Contents&) {}, "", "FP16 has no typed ones"}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace evaserve
