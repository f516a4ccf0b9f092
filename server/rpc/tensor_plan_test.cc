#include "server/rpc/tensor_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/rpc/infer_test_util.h"

namespace evaserve {
namespace {

using inference::ModelInferRequest;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const TensorModelInfo kInfo = {
    .architecture = "test",
    .inputs = {{"pixels", TensorType::kFp32, {-1, 2}}, {"names", TensorType::kBytes, {-1}}},
    .outputs = {{.name = "logits", .shape = {-1, 3}, .labels = {"cat", "dog", "mouse"}},
                {"label", TensorType::kBytes, {-1}}}};

// A batch of 1, raw.
ModelInferRequest GoodRequest() {
  ModelInferRequest request;
  request.set_model_name("m");
  AddInput("pixels", "FP32", {1, 2}, request);
  AddInput("names", "BYTES", {1}, request);
  request.add_raw_input_contents(RawOf<float>({1, 2}));
  request.add_raw_input_contents(RawBytesOf({"cat"}));
  return request;
}

absl::StatusOr<TensorPlan> Plan(const ModelInferRequest& request) {
  return PlanTensors(request, kInfo, TimePoint::max());
}

TEST(TensorPlanTest, ReadsRawContents) {
  const ModelInferRequest request = GoodRequest();

  const auto plan = Plan(request);

  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->batch, 1);
  EXPECT_EQ(plan->inputs[0].data, RawOf<float>({1, 2}));
  EXPECT_EQ(plan->inputs[0].data.data(), request.raw_input_contents(0).data()) << "no copy";
  EXPECT_EQ(plan->inputs[1].data, RawBytesOf({"cat"}));
  EXPECT_THAT(plan->outputs, ElementsAre(TensorPlan::Output{0}, TensorPlan::Output{1}));
  EXPECT_EQ(plan->input_bytes(), 8 + 7);
}

TEST(TensorPlanTest, InputsMayComeInAnyOrder) {
  ModelInferRequest request;
  AddInput("names", "BYTES", {1}, request);
  AddInput("pixels", "FP32", {1, 2}, request);
  request.add_raw_input_contents(RawBytesOf({"cat"}));
  request.add_raw_input_contents(RawOf<float>({1, 2}));

  const auto plan = Plan(request);

  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->inputs[0].data, RawOf<float>({1, 2}));
}

TEST(TensorPlanTest, ReadsTypedContents) {
  ModelInferRequest request;
  auto& pixels = *AddInput("pixels", "FP32", {2, 2}, request).mutable_contents();
  for (float value : {1.f, 2.f, 3.f, 4.f}) pixels.add_fp32_contents(value);
  auto& names = *AddInput("names", "BYTES", {2}, request).mutable_contents();
  for (const char* name : {"cat", ""}) names.add_bytes_contents(name);

  const auto plan = Plan(request);

  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->batch, 2);
  EXPECT_EQ(plan->inputs[0].data, RawOf<float>({1, 2, 3, 4}));
  EXPECT_EQ(plan->inputs[1].data, RawBytesOf({"cat", ""}));
}

TEST(TensorPlanTest, OutputsComeInTheOrderAskedFor) {
  ModelInferRequest request = GoodRequest();
  request.add_outputs()->set_name("label");
  const auto plan = Plan(request);
  ASSERT_TRUE(plan.ok()) << plan.status();

  inference::ModelInferResponse response;
  FillTensors(*plan, kInfo, {{{1, 3}, RawOf<float>({1, 2, 3})}, {{1}, RawBytesOf({"dog"})}},
              response);

  ASSERT_EQ(response.outputs_size(), 1);
  EXPECT_EQ(response.outputs(0).name(), "label");
  EXPECT_EQ(response.outputs(0).datatype(), "BYTES");
  EXPECT_THAT(response.outputs(0).shape(), ElementsAre(1));
  EXPECT_THAT(response.raw_output_contents(), ElementsAre(RawBytesOf({"dog"})));
}

TEST(TensorPlanTest, OutputsCanBeClassified) {
  ModelInferRequest request = GoodRequest();
  auto& wanted = *request.add_outputs();
  wanted.set_name("logits");
  (*wanted.mutable_parameters())["classification"].set_int64_param(2);
  const auto plan = Plan(request);
  ASSERT_TRUE(plan.ok()) << plan.status();

  inference::ModelInferResponse response;
  FillTensors(*plan, kInfo, {{{1, 3}, RawOf<float>({1, 3, 2})}, {{1}, RawBytesOf({"dog"})}},
              response);

  ASSERT_EQ(response.outputs_size(), 1);
  EXPECT_EQ(response.outputs(0).datatype(), "BYTES");
  EXPECT_THAT(response.outputs(0).shape(), ElementsAre(1, 2));
  EXPECT_THAT(response.raw_output_contents(),
              ElementsAre(RawBytesOf({"3.000000:1:dog", "2.000000:2:mouse"})));
}

TEST(TensorPlanTest, OptionalInputsMayBeAbsentButNotAll) {
  TensorModelInfo info = kInfo;
  for (TensorSpec& input : info.inputs) input.is_optional = true;
  ModelInferRequest request = GoodRequest();
  request.mutable_inputs()->RemoveLast();
  request.mutable_raw_input_contents()->RemoveLast();

  const auto plan = PlanTensors(request, info, TimePoint::max());
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->batch, 1);
  EXPECT_THAT(plan->inputs[1].shape, ElementsAre());

  request.clear_inputs();
  request.clear_raw_input_contents();
  EXPECT_THAT(std::string(PlanTensors(request, info, TimePoint::max()).status().message()),
              HasSubstr("inputs: got none, allowed are pixels, names"));
}

TEST(TensorPlanTest, TheModelIsToldWhatIsAskedFor) {
  ModelInferRequest request = GoodRequest();
  const auto all = Plan(request);
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_TRUE(all->inputs.Wants(0) && all->inputs.Wants(1));

  request.add_outputs()->set_name("label");
  const auto plan = Plan(request);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_FALSE(MakeRequest(*plan).inputs.Wants(0));
  EXPECT_TRUE(MakeRequest(*plan).inputs.Wants(1));
}

TEST(TensorPlanTest, TheTimeoutAndThePriorityCount) {
  ModelInferRequest request = GoodRequest();
  (*request.mutable_parameters())["priority"].set_int64_param(2);
  (*request.mutable_parameters())["timeout"].set_int64_param(1'000'000);

  const auto plan = Plan(request);

  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->priority, 2);
  EXPECT_LE(plan->deadline, Clock::now() + std::chrono::seconds(1));
}

// The contents of one input only are in the message.
TEST(TensorPlanTest, SharedMemoryIsNotSupported) {
  ModelInferRequest input = GoodRequest();
  (*input.mutable_inputs(0)->mutable_parameters())["shared_memory_offset"].set_int64_param(1);
  input.mutable_raw_input_contents()->DeleteSubrange(0, 1);
  ModelInferRequest output = GoodRequest();
  output.add_outputs()->set_name("logits");
  (*output.mutable_outputs(0)->mutable_parameters())["shared_memory_region"].set_string_param("x");

  EXPECT_TRUE(absl::IsUnimplemented(Plan(input).status()));
  EXPECT_TRUE(absl::IsUnimplemented(Plan(output).status()));
}

struct BadRequest {
  const char* name;
  void (*spoil)(ModelInferRequest& request);
  const char* message;
};

class BadTensorRequestTest : public ::testing::TestWithParam<BadRequest> {};

TEST_P(BadTensorRequestTest, IsRefusedByName) {
  ModelInferRequest request = GoodRequest();
  GetParam().spoil(request);

  const absl::Status status = Plan(request).status();

  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadTensorRequestTest,
    ::testing::Values(
        BadRequest{"NoInputs", [](ModelInferRequest& r) { r.Clear(); }, "pixels is missing"},
        BadRequest{"MissingInput",
                   [](ModelInferRequest& r) {
                     r.mutable_inputs()->RemoveLast();
                     r.mutable_raw_input_contents()->RemoveLast();
                   },
                   "names is missing"},
        BadRequest{"UnknownInput",
                   [](ModelInferRequest& r) { r.mutable_inputs(0)->set_name("pixel"); },
                   "got 'pixel', allowed are pixels, names"},
        BadRequest{"TwiceTheSame", [](ModelInferRequest& r) { *r.mutable_inputs(1) = r.inputs(0); },
                   "pixels twice"},
        BadRequest{"WrongDatatype",
                   [](ModelInferRequest& r) { r.mutable_inputs(0)->set_datatype("FP64"); },
                   "pixels: got datatype FP64, allowed is FP32"},
        BadRequest{"WrongRank", [](ModelInferRequest& r) { r.mutable_inputs(0)->add_shape(1); },
                   "got shape [1,2,1], allowed is [-1,2]"},
        BadRequest{"WrongSize", [](ModelInferRequest& r) { r.mutable_inputs(0)->set_shape(1, 3); },
                   "got shape [1,3]"},
        BadRequest{"EmptyBatch", [](ModelInferRequest& r) { r.mutable_inputs(0)->set_shape(0, 0); },
                   "got shape [0,2]"},
        BadRequest{"NegativeBatch",
                   [](ModelInferRequest& r) { r.mutable_inputs(0)->set_shape(0, -1); },
                   "got shape [-1,2]"},
        BadRequest{"NegativeSize",
                   [](ModelInferRequest& r) {
                     r.mutable_inputs(1)->set_shape(0, 1);
                     r.mutable_inputs(1)->add_shape(-2);
                   },
                   "names: got shape [1,-2]"},
        BadRequest{"LongContents",
                   [](ModelInferRequest& r) { r.mutable_raw_input_contents(0)->push_back(0); },
                   "got 9 bytes of raw contents, its shape has 2 elements of 4 bytes"},
        BadRequest{"HugeShape",
                   [](ModelInferRequest& r) {
                     r.mutable_inputs(0)->set_shape(0, int64_t{1} << 62);
                     r.mutable_inputs(1)->set_shape(0, int64_t{1} << 62);
                   },
                   "got 8 bytes of raw contents"},
        BadRequest{"OtherBatch",
                   [](ModelInferRequest& r) {
                     r.mutable_inputs(1)->set_shape(0, 2);
                     *r.mutable_raw_input_contents(1) = RawBytesOf({"cat", "dog"});
                   },
                   "names: got a batch of 2, another input has 1"},
        BadRequest{"ShortContents",
                   [](ModelInferRequest& r) { r.mutable_raw_input_contents(0)->pop_back(); },
                   "got 7 bytes of raw contents, its shape has 2 elements of 4 bytes"},
        BadRequest{"BrokenBytes",
                   [](ModelInferRequest& r) { r.mutable_raw_input_contents(1)->pop_back(); },
                   "names: element 0 has length 3"},
        BadRequest{"TooFewContents",
                   [](ModelInferRequest& r) { r.mutable_raw_input_contents()->RemoveLast(); },
                   "raw_input_contents: got 1 entries, allowed is 2"},
        BadRequest{"BothKindsOfContents",
                   [](ModelInferRequest& r) {
                     r.mutable_inputs(0)->mutable_contents()->add_fp32_contents(1);
                   },
                   "contents field must not be specified"},
        BadRequest{"UnknownOutput",
                   [](ModelInferRequest& r) { r.add_outputs()->set_name("logit"); },
                   "outputs: got 'logit', allowed are logits, label"},
        BadRequest{"OutputTwice",
                   [](ModelInferRequest& r) {
                     r.add_outputs()->set_name("label");
                     r.add_outputs()->set_name("label");
                   },
                   "got label twice"},
        BadRequest{"OutputParameter",
                   [](ModelInferRequest& r) {
                     auto& output = *r.add_outputs();
                     output.set_name("label");
                     (*output.mutable_parameters())["classification"].set_int64_param(1);
                   },
                   "label: got parameter 'classification'"},
        BadRequest{"NoClasses",
                   [](ModelInferRequest& r) {
                     auto& output = *r.add_outputs();
                     output.set_name("logits");
                     (*output.mutable_parameters())["classification"].set_int64_param(0);
                   },
                   "logits: got classification 0, allowed is an integer from 1 on"},
        BadRequest{"OtherParameterOfAnOutput",
                   [](ModelInferRequest& r) {
                     auto& output = *r.add_outputs();
                     output.set_name("logits");
                     (*output.mutable_parameters())["classes"].set_int64_param(1);
                   },
                   "logits: got parameter 'classes', allowed is classification"},
        BadRequest{"ParameterOfAGeneration",
                   [](ModelInferRequest& r) {
                     (*r.mutable_parameters())["temperature"].set_double_param(1);
                   },
                   "parameters: got 'temperature'"}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace evaserve
