#include "server/rpc/open_inference_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "absl/synchronization/notification.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/rpc/infer_test_util.h"
#include "server/testing/fake_model_server.h"

namespace evaserve {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;
using std::chrono::milliseconds;
using std::chrono::system_clock;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

FakeModelServer::Options Speaking(const std::string& text, size_t prompt_tokens) {
  FakeModelServer::Options options;
  options.model.next_token = Saying(text, prompt_tokens);
  return options;
}

struct InferAnswer {
  grpc::Status status;
  ModelInferResponse response;
};

InferAnswer Infer(FakeModelServer& server, const ModelInferRequest& request) {
  InferAnswer answer;
  grpc::ClientContext context;
  answer.status = server.open_inference().ModelInfer(&context, request, &answer.response);
  return answer;
}

TEST(ModelInferTest, GeneratesForEachElementOfABatch) {
  FakeModelServer server(Speaking("hello", 3));

  const InferAnswer answer = Infer(server, InferRequest({"ab", "cd", "ef"}));

  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.response.model_name(), "fake");
  EXPECT_EQ(answer.response.model_version(), "1");
  EXPECT_EQ(answer.response.id(), "request-1");
  ASSERT_EQ(answer.response.outputs_size(), 1);
  EXPECT_EQ(answer.response.outputs(0).name(), "text_output");
  EXPECT_THAT(TextsOf(answer.response), ElementsAre("hello", "hello", "hello"));
}

TEST(ModelInferTest, RunsTheElementsOfABatchTogether) {
  FakeModelServer server;
  server.control().SetStepTime(milliseconds(1));

  ASSERT_TRUE(Infer(server, InferRequest({"ab", "cd", "ef"})).status.ok());

  size_t most = 0;
  for (const auto& step : server.control().steps()) most = std::max(most, step.size());
  EXPECT_EQ(most, 3u);
}

TEST(ModelInferTest, ScoresAndEmbedsInOneRequest) {
  FakeModelServer server(Speaking("ab", 1));

  const InferAnswer answer =
      Infer(server, InferRequest({"ab", "xy"}, {"log_likelihood", "embedding", "bits_per_byte"}));

  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  ASSERT_EQ(answer.response.outputs_size(), 3);
  const std::vector<double> likelihoods = ValuesOf<double>(answer.response, 0);
  ASSERT_EQ(likelihoods.size(), 2u);
  EXPECT_NEAR(likelihoods[0], 2 * FakeModel::LikelyLogprob(), 1e-6);
  EXPECT_LT(likelihoods[1], likelihoods[0]);
  EXPECT_THAT(answer.response.outputs(1).shape(), ElementsAre(2, 3));
  EXPECT_EQ(ValuesOf<float>(answer.response, 1).size(), 6u);
  EXPECT_NEAR(ValuesOf<double>(answer.response, 2)[0], 1, 1e-6);  // half of the probability
}

TEST(ModelInferTest, TellsHowAGenerationEnded) {
  FakeModelServer server(Speaking("hello", 3));

  const InferAnswer answer = Infer(server, InferRequest({"ab"}));

  EXPECT_EQ(answer.response.parameters().at("finish_reason").string_param(), "eos");
  EXPECT_EQ(answer.response.parameters().at("new_tokens").int64_param(), 6);
}

TEST(ModelInferTest, TheFirstFailureOfABatchIsTheAnswer) {
  FakeModelServer server;
  const TokenId poison = *FakeTokenizer().ByteToken('!');
  server.control().FailIf([poison](std::span<const TokenId> history) {
    return history[1] == poison ? absl::InternalError("broken kernel") : absl::OkStatus();
  });

  const InferAnswer answer = Infer(server, InferRequest({"ab", "!", "cd"}));

  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(server.control().live_sequences(), 0);
}

TEST(ModelInferTest, RefusesABatchWithOneElementThatIsTooLong) {
  FakeModelServer server;

  const InferAnswer answer = Infer(server, InferRequest({"ab", std::string(5000, 'x')}));

  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(answer.status.error_message(), HasSubstr("5001 tokens"));
  EXPECT_TRUE(server.WaitForMetric("evaserve_running_sequences{model=\"fake\"}", 0));
}

FakeModelServer::Options WithRoomForThree(OverloadStatus overload_status) {
  FakeModelServer::Options options;
  options.config.max_running = 1;
  options.config.max_waiting = 2;
  options.config.overload_status = overload_status;
  return options;
}

// Asks for as much as there is room for while something else runs.
grpc::Status InferTooMuch(FakeModelServer& server, grpc::ClientContext& context) {
  server.control().Hold();
  auto other =
      std::async(std::launch::async, [&server] { return Infer(server, InferRequest({"other"})); });
  server.control().WaitUntilHeld();
  ModelInferResponse response;
  grpc::Status status =
      server.open_inference().ModelInfer(&context, InferRequest({"ab", "cd", "ef"}), &response);
  server.control().Release();
  EXPECT_TRUE(other.get().status.ok());
  return status;
}

TEST(ModelStatisticsTest, CountRequestsAndTheirElements) {
  FakeModelServer server(Speaking("hello", 3));
  ASSERT_TRUE(Infer(server, InferRequest({"ab", "cd", "ef", "gh"})).status.ok());

  const inference::ModelStatistics statistics = server.Statistics("fake");

  const inference::InferStatistics& sums = statistics.inference_stats();
  EXPECT_EQ(statistics.inference_count(), 4u);
  EXPECT_EQ(sums.success().count(), 1u);
  EXPECT_EQ(sums.queue().count(), 1u);
  EXPECT_EQ(sums.compute_infer().count(), 1u);
  EXPECT_LE(sums.queue().ns() + sums.compute_infer().ns(), sums.success().ns());
  EXPECT_EQ(sums.fail().count(), 0u);
  EXPECT_GT(statistics.execution_count(), 0u);
}

TEST(ModelStatisticsTest, CountWhoWasRefusedAsFailed) {
  FakeModelServer server(WithRoomForThree(OverloadStatus::kResourceExhausted));
  grpc::ClientContext context;

  InferTooMuch(server, context);

  EXPECT_EQ(server.Statistics("fake").inference_stats().success().count(), 1u);
  EXPECT_EQ(server.Statistics("fake").inference_stats().fail().count(), 1u);
}

TEST(ModelInferTest, ABatchForWhichThereIsNeverRoomIsWrong) {
  FakeModelServer server(WithRoomForThree(OverloadStatus::kResourceExhausted));

  const InferAnswer answer = Infer(server, InferRequest({"ab", "cd", "ef", "gh"}));

  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(answer.status.error_message(), HasSubstr("makes 4 sequences, the limit is 3"));
  EXPECT_TRUE(server.control().steps().empty());
}

TEST(ModelInferTest, OverloadComesWithAHintWhenToRetry) {
  FakeModelServer server(WithRoomForThree(OverloadStatus::kResourceExhausted));
  grpc::ClientContext context;

  const grpc::Status status = InferTooMuch(server, context);

  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(context.GetServerTrailingMetadata().count("grpc-retry-pushback-ms"), 1u);
  google::rpc::Status details;
  google::rpc::RetryInfo retry;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(details.code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  ASSERT_EQ(details.details_size(), 1);
  ASSERT_TRUE(details.details(0).UnpackTo(&retry));
  EXPECT_EQ(retry.retry_delay().nanos(), 250'000'000);
  EXPECT_TRUE(server.WaitForMetric("evaserve_running_sequences{model=\"fake\"}", 0));
  EXPECT_TRUE(Infer(server, InferRequest({"ab"})).status.ok());
}

TEST(ModelInferTest, OverloadIsUnavailableForTritonsClients) {
  FakeModelServer server(WithRoomForThree(OverloadStatus::kUnavailable));
  grpc::ClientContext context;

  const grpc::Status status = InferTooMuch(server, context);

  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(context.GetServerTrailingMetadata().count("grpc-retry-pushback-ms"), 1u);
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(details.code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(server.WaitForMetric(
      "evaserve_requests_total{code=\"UNAVAILABLE\",method=\"ModelInfer\",model=\"fake\"}", 1));
}

TEST(ModelInferTest, TimeoutParameterIsADeadline) {
  FakeModelServer server;
  server.control().SetStepTime(milliseconds(1));
  ModelInferRequest request = InferRequest({"ab"});
  (*request.mutable_parameters())["max_tokens"].set_int64_param(4000);
  (*request.mutable_parameters())["timeout"].set_int64_param(20'000);

  const InferAnswer answer = Infer(server, request);

  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(server.control().live_sequences(), 0);
}

TEST(ModelInferTest, CancellingFreesAllSequencesOfTheBatch) {
  FakeModelServer server;
  server.control().Hold();
  grpc::ClientContext context;
  ModelInferResponse response;
  grpc::CompletionQueue queue;
  auto call =
      server.open_inference().AsyncModelInfer(&context, InferRequest({"ab", "cd", "ef"}), &queue);
  grpc::Status status;
  call->Finish(&response, &status, nullptr);
  server.control().WaitUntilHeld();

  context.TryCancel();
  void* tag;
  bool ok;
  queue.Next(&tag, &ok);
  server.control().SetStepTime(milliseconds(1));
  server.control().Release();

  EXPECT_EQ(status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(server.WaitForMetric("evaserve_requests_in_flight", 0));
  EXPECT_EQ(server.control().live_sequences(), 0);
  EXPECT_EQ(server.Statistics("fake").inference_stats().success().count(), 0u);
  EXPECT_EQ(server.Statistics("fake").inference_stats().fail().count(), 1u);
}

TEST(ModelInferTest, RefusesVersionsThatThereAreNot) {
  FakeModelServer server;
  ModelInferRequest request = InferRequest({"ab"});

  request.set_model_version("two");
  const grpc::Status not_a_number = Infer(server, request).status;
  request.set_model_version("2");
  const grpc::Status not_there = Infer(server, request).status;
  request.set_model_version("1");
  const grpc::Status there = Infer(server, request).status;

  EXPECT_EQ(not_a_number.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(not_a_number.error_message(), HasSubstr("model_version: got 'two'"));
  EXPECT_EQ(not_there.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(not_there.error_message(), HasSubstr("has no version 2; there are: 1"));
  EXPECT_TRUE(there.ok()) << there.error_message();
}

TEST(ModelInferTest, NamesTheModelsThatThereAre) {
  FakeModelServer server;
  ModelInferRequest request = InferRequest({"ab"});
  request.set_model_name("other");

  const grpc::Status status = Infer(server, request).status;

  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("there are: fake"));
}

TEST(ModelInferTest, CallsToAModelThatIsNotReadyCountUnderItsName) {
  absl::Notification loading, go;
  FakeModelServer::Options options;
  options.before_load = [&](const std::string&) {
    loading.Notify();
    go.WaitForNotification();
  };
  FakeModelServer server(std::move(options));
  loading.WaitForNotification();
  ModelInferRequest request = InferRequest({"ab"});

  EXPECT_EQ(Infer(server, request).status.error_code(), grpc::StatusCode::UNAVAILABLE);
  request.set_model_name("strangers");
  EXPECT_EQ(Infer(server, request).status.error_code(), grpc::StatusCode::NOT_FOUND);

  EXPECT_TRUE(server.WaitForMetric(
      "evaserve_requests_total{code=\"UNAVAILABLE\",method=\"ModelInfer\",model=\"fake\"}", 1));
  EXPECT_TRUE(server.WaitForMetric(
      "evaserve_requests_total{code=\"NOT_FOUND\",method=\"ModelInfer\",model=\"\"}", 1));
  go.Notify();
  EXPECT_TRUE(server.server().WaitUntilLoaded().ok());
}

TEST(ModelInferTest, AnswersErrorsOfAnyLengthThatAClientCanProvoke) {
  FakeModelServer server;
  ModelInferRequest request = InferRequest({"ab"});
  (*request.mutable_parameters())[std::string(100'000, 'p')].set_bool_param(true);

  EXPECT_EQ(Infer(server, request).status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST(ModelInferTest, AMessageBeyondTheLimitIsResourceExhausted) {
  FakeModelServer::Options options;
  options.config.max_message_mb = 1;
  FakeModelServer server(std::move(options));

  const InferAnswer answer = Infer(server, InferRequest({std::string(2 << 20, 'x')}));

  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(Infer(server, InferRequest({"ab"})).status.ok());
}

TEST(ServerQuestionsTest, TellWhetherItLivesAndServes) {
  FakeModelServer server;
  inference::ServerLiveResponse live;
  inference::ServerReadyResponse ready;
  grpc::ClientContext first, second;

  ASSERT_TRUE(server.open_inference().ServerLive(&first, {}, &live).ok());
  ASSERT_TRUE(server.open_inference().ServerReady(&second, {}, &ready).ok());

  EXPECT_TRUE(live.live());
  EXPECT_TRUE(ready.ready());
}

TEST(ServerQuestionsTest, AnUnknownModelIsNotReady) {
  FakeModelServer server;
  inference::ModelReadyRequest request;
  request.set_name("other");
  inference::ModelReadyResponse response;
  grpc::ClientContext context;

  ASSERT_TRUE(server.open_inference().ModelReady(&context, request, &response).ok());

  EXPECT_FALSE(response.ready());
}

TEST(ServerQuestionsTest, DescribeServerAndModel) {
  FakeModelServer server;
  inference::ServerMetadataResponse of_server;
  inference::ModelMetadataRequest request;
  request.set_name("fake");
  inference::ModelMetadataResponse of_model;
  grpc::ClientContext first, second;

  ASSERT_TRUE(server.open_inference().ServerMetadata(&first, {}, &of_server).ok());
  ASSERT_TRUE(server.open_inference().ModelMetadata(&second, request, &of_model).ok());

  EXPECT_EQ(of_server.name(), "evaserve");
  EXPECT_FALSE(of_server.version().empty());
  EXPECT_THAT(of_model.versions(), ElementsAre("1"));
  ASSERT_EQ(of_model.inputs_size(), 1);
  EXPECT_EQ(of_model.inputs(0).datatype(), "BYTES");
  std::vector<std::string> outputs;
  for (const auto& output : of_model.outputs()) outputs.push_back(output.name());
  EXPECT_THAT(outputs,
              UnorderedElementsAre("text_output", "log_likelihood", "bits_per_byte", "embedding"));
}

TEST(ServerQuestionsTest, MetadataOfAnUnknownModelIsNotFound) {
  FakeModelServer server;
  inference::ModelMetadataRequest request;
  request.set_name("other");
  inference::ModelMetadataResponse response;
  grpc::ClientContext context;

  const grpc::Status status = server.open_inference().ModelMetadata(&context, request, &response);

  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
}

}  // namespace
}  // namespace evaserve
