#include "server/rpc/infer_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/fakes/fake_tokenizer.h"

namespace evaserve {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

ModelInferRequest MakeRequest(const std::vector<std::string>& texts,
                              const std::vector<std::string>& outputs) {
  ModelInferRequest request;
  auto* input = request.add_inputs();
  input->set_name("text_input");
  input->set_datatype("BYTES");
  input->add_shape(static_cast<int64_t>(texts.size()));
  for (const std::string& text : texts) input->mutable_contents()->add_bytes_contents(text);
  for (const std::string& output : outputs) request.add_outputs()->set_name(output);
  return request;
}

absl::StatusOr<InferPlan> Plan(const ModelInferRequest& request,
                               TimePoint deadline = TimePoint::max()) {
  return PlanInfer(request, ModelInfo(), FakeTokenizer(), deadline);
}

GroupResult ScoreResult(std::vector<float> logprobs) {
  GroupResult result;
  result.completion.logprobs = std::move(logprobs);
  return result;
}

TEST(InferPlanTest, GeneratesIfNoOutputIsAskedFor) {
  const auto plan = Plan(MakeRequest({"a"}, {}));

  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->outputs, ElementsAre(InferOutput::kTextOutput));
  EXPECT_TRUE(plan->is_one_generation());
}

TEST(InferPlanTest, RunsEachElementThroughEachTaskOnce) {
  const auto plan =
      Plan(MakeRequest({"a", "bc"}, {"bits_per_byte", "embedding", "log_likelihood"}));

  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->tasks, ElementsAre(Task::kScore, Task::kEmbed));
  ASSERT_EQ(plan->requests.size(), 4u);
  EXPECT_EQ(plan->requests[1].task, Task::kScore);
  EXPECT_EQ(plan->requests[1].tokens, FakeTokenizer().Encode("bc", false));
  EXPECT_EQ(plan->requests[2].task, Task::kEmbed);
  EXPECT_EQ(plan->input_bytes(), 3);
}

TEST(InferPlanTest, TextFromStrangersMakesNoControlTokens) {
  const auto plan = Plan(MakeRequest({"<eos>"}, {}));

  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->requests[0].tokens.size(), 6u);
}

TEST(InferPlanTest, TimeoutBringsTheDeadlineForward) {
  ModelInferRequest request = MakeRequest({"a"}, {});
  (*request.mutable_parameters())["timeout"].set_int64_param(1'000'000);

  const auto plan = Plan(request);

  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_LE(plan->requests[0].deadline, Clock::now() + std::chrono::seconds(1));
}

TEST(InferPlanTest, TimeoutCannotPutTheDeadlineOff) {
  ModelInferRequest request = MakeRequest({"a"}, {});
  (*request.mutable_parameters())["timeout"].set_int64_param(60'000'000);
  const TimePoint deadline = Clock::now();

  const auto plan = Plan(request, deadline);

  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->requests[0].deadline, deadline);
}

TEST(InferPlanTest, RefusesAnUnknownOutput) {
  const absl::Status status = Plan(MakeRequest({"a"}, {"logits"})).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("outputs: got 'logits', allowed are text_output, log_likelihood"));
}

TEST(InferPlanTest, RefusesAnOutputAskedForTwice) {
  const absl::Status status = Plan(MakeRequest({"a"}, {"embedding", "embedding"})).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("embedding twice"));
}

TEST(InferPlanTest, OutputsInSharedMemoryAreNotSupported) {
  ModelInferRequest request = MakeRequest({"a"}, {"embedding"});
  (*request.mutable_outputs(0)->mutable_parameters())["shared_memory_region"].set_string_param("x");

  EXPECT_TRUE(absl::IsUnimplemented(Plan(request).status()));
}

TEST(InferPlanTest, RefusesClassification) {
  ModelInferRequest request = MakeRequest({"a"}, {"embedding"});
  (*request.mutable_outputs(0)->mutable_parameters())["classification"].set_int64_param(1);

  const absl::Status status = Plan(request).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("embedding: got parameter 'classification'"));
}

TEST(InferPlanTest, AnswersInTheOrderAskedFor) {
  const auto plan = Plan(MakeRequest({"ab"}, {"bits_per_byte", "log_likelihood"}));
  ASSERT_TRUE(plan.ok()) << plan.status();
  ModelInferResponse response;

  FillOutputs(*plan, {ScoreResult({-1, -1})}, response);

  ASSERT_EQ(response.outputs_size(), 2);
  EXPECT_EQ(response.outputs(0).name(), "bits_per_byte");
  const double bits = *reinterpret_cast<const double*>(response.raw_output_contents(0).data());
  const double likelihood =
      *reinterpret_cast<const double*>(response.raw_output_contents(1).data());
  EXPECT_DOUBLE_EQ(likelihood, -2);
  EXPECT_DOUBLE_EQ(bits, 1 / std::log(2.0));
}

TEST(InferPlanTest, TellsHowOneGenerationEnded) {
  const auto plan = Plan(MakeRequest({"ab"}, {}));
  ASSERT_TRUE(plan.ok()) << plan.status();
  GroupResult result;
  result.text = "cd";
  result.completion.finish_reason = FinishReason::kStop;
  result.completion.seed = 9;
  result.completion.usage = {.prompt_tokens = 3, .new_tokens = 2, .new_bytes = 2};
  ModelInferResponse response;

  FillOutputs(*plan, {result}, response);

  EXPECT_EQ(response.parameters().at("finish_reason").string_param(), "stop");
  EXPECT_EQ(response.parameters().at("seed").uint64_param(), 9u);
  EXPECT_EQ(response.parameters().at("prompt_tokens").int64_param(), 3);
  EXPECT_EQ(response.parameters().at("new_tokens").int64_param(), 2);
}

}  // namespace
}  // namespace evaserve
