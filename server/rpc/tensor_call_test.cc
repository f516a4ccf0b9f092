// A model of tensors behind the real server.
#include "server/rpc/tensor_call.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "server/metrics/inference_statistics.h"
#include "server/metrics/metrics.h"
#include "server/rpc/infer_test_util.h"
#include "server/rpc/tensor_answers.h"
#include "server/testing/fake_model_server.h"
#include "tests/fakes/fake_tensor_model.h"
#include "tests/fakes/recording_observer.h"

namespace evaserve {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;
using inference::ModelStreamInferResponse;
using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

class TensorCallTest : public ::testing::Test {
 protected:
  grpc::Status Infer(const ModelInferRequest& request) {
    grpc::ClientContext context;
    return server_.open_inference().ModelInfer(&context, request, &response_);
  }

  std::future<grpc::Status> InferLater(grpc::ClientContext& context, const std::string& data) {
    return std::async(std::launch::async, [this, &context, data] {
      ModelInferResponse response;
      return server_.open_inference().ModelInfer(&context, TensorInferRequest(data), &response);
    });
  }

  bool CountsRequests(const char* code, int count) {
    return server_.WaitForMetric("evaserve_requests_total{code=\"" + std::string(code) +
                                     "\",method=\"ModelInfer\",model=\"tensors\"}",
                                 count);
  }

  FakeModelServer server_{{.serves_tensors = true}};
  ModelInferResponse response_;
};

TEST_F(TensorCallTest, AnswersWithTheOutputs) {
  const grpc::Status status = Infer(TensorInferRequest("abc"));

  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response_.id(), "abc");
  EXPECT_EQ(response_.model_version(), "1");
  EXPECT_EQ(response_.outputs(1).name(), "again");
  EXPECT_THAT(response_.outputs(1).shape(), ElementsAre(1, 3));
  EXPECT_THAT(response_.raw_output_contents(), ElementsAre("abc", "abc"));
  EXPECT_TRUE(CountsRequests("OK", 1));
}

TEST_F(TensorCallTest, StatisticsCountRows) {
  ModelInferRequest request = TensorInferRequest("abcdef");
  request.mutable_inputs(0)->set_shape(0, 3);
  request.mutable_inputs(0)->set_shape(1, 2);
  ASSERT_TRUE(Infer(request).ok());

  const inference::ModelStatistics statistics = server_.Statistics("tensors");

  EXPECT_EQ(statistics.inference_stats().success().count(), 1u);
  EXPECT_EQ(statistics.inference_count(), 3u);
  EXPECT_EQ(statistics.execution_count(), 1u);
  ASSERT_EQ(statistics.batch_stats_size(), 1);
  EXPECT_EQ(statistics.batch_stats(0).batch_size(), 3u);
  EXPECT_EQ(statistics.batch_stats(0).compute_infer().count(), 1u);
}

TEST_F(TensorCallTest, ABadRequestIsRefused) {
  ModelInferRequest request = TensorInferRequest("abc");
  request.mutable_inputs(0)->set_name("inputs");

  const grpc::Status status = Infer(request);

  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("got 'inputs', allowed are input"));
}

TEST_F(TensorCallTest, MoreRowsThanABatchHasAreRefused) {
  ModelInferRequest request = TensorInferRequest(std::string(65, 'x'));
  request.mutable_inputs(0)->set_shape(0, 65);
  request.mutable_inputs(0)->set_shape(1, 1);

  const grpc::Status status = Infer(request);
  grpc::ClientContext context;
  auto stream = server_.open_inference().ModelStreamInfer(&context);
  ModelStreamInferResponse answer;
  stream->Write(request);
  ASSERT_TRUE(stream->Read(&answer));
  stream->WritesDone();

  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(),
              HasSubstr("input: got a batch of 65, batch-size must be <= 64"));
  EXPECT_THAT(answer.error_message(), HasSubstr("batch-size must be <= 64"));
}

// gRPC tells a reactor that has called Finish() already, if its client went before that.
TEST(RefusedTensorCallTest, MayBeCancelled) {
  Metrics metrics("test");
  InferenceStatistics statistics;
  RequestLog log(metrics, statistics);
  grpc::CallbackServerContext context;
  auto scope = std::make_unique<RequestScope>(log, Caller(), "ModelInfer", MethodKind::kInference);
  grpc::ServerUnaryReactor* call =
      TensorCall::Start(context, std::move(scope), absl::InvalidArgumentError("inputs: got none"));

  call->OnCancel();

  call->OnDone();
  EXPECT_EQ(log.in_flight(), 0);
}

TEST_F(TensorCallTest, TheModelsErrorIsTheCalls) {
  server_.tensor_control().FailIf(
      [](std::string_view) { return absl::InvalidArgumentError("no such picture"); });

  const grpc::Status status = Infer(TensorInferRequest("abc"));

  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "no such picture");
}

TEST_F(TensorCallTest, ACancelledCallLeavesTheQueue) {
  server_.tensor_control().Hold();
  grpc::ClientContext first, second;
  auto held = InferLater(first, "held");
  server_.tensor_control().WaitUntilHeld();
  auto waiting = InferLater(second, "waiting");
  ASSERT_TRUE(server_.WaitForMetric("evaserve_requests_in_flight", 2));

  second.TryCancel();

  EXPECT_EQ(waiting.get().error_code(), grpc::StatusCode::CANCELLED);
  server_.tensor_control().Release();
  EXPECT_TRUE(held.get().ok());
  EXPECT_TRUE(server_.WaitForMetric("evaserve_requests_in_flight", 0));
}

TEST_F(TensorCallTest, ADeadlineEndsACallThatWaits) {
  server_.tensor_control().Hold();
  grpc::ClientContext first, second;
  auto held = InferLater(first, "held");
  server_.tensor_control().WaitUntilHeld();

  second.set_deadline(std::chrono::system_clock::now() + milliseconds(20));
  auto waiting = InferLater(second, "waiting");

  EXPECT_EQ(waiting.get().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  server_.tensor_control().Release();
  EXPECT_TRUE(held.get().ok());
  EXPECT_TRUE(server_.WaitForMetric("evaserve_requests_in_flight", 0));
}

TEST_F(TensorCallTest, ShutdownLetsWhatRunsEnd) {
  server_.tensor_control().Hold();
  grpc::ClientContext context;
  auto held = InferLater(context, "held");
  server_.tensor_control().WaitUntilHeld();
  std::thread shutdown([this] { server_.server().Shutdown(); });

  server_.tensor_control().Release();

  EXPECT_TRUE(held.get().ok());
  shutdown.join();
}

TEST_F(TensorCallTest, AStreamAnswersEachRequest) {
  grpc::ClientContext context;
  auto stream = server_.open_inference().ModelStreamInfer(&context);
  for (const char* data : {"a", "bc"}) stream->Write(TensorInferRequest(data));
  ModelInferRequest bad = TensorInferRequest("bad");
  bad.mutable_inputs(0)->set_datatype("FP32");
  stream->Write(bad);
  stream->WritesDone();

  std::vector<std::string> data, errors;
  for (ModelStreamInferResponse message; stream->Read(&message);) {
    if (!message.error_message().empty()) {
      errors.push_back(message.infer_response().id());
      continue;
    }
    EXPECT_EQ(message.infer_response().id(), message.infer_response().raw_output_contents(0));
    data.push_back(message.infer_response().raw_output_contents(0));
  }

  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_THAT(data, UnorderedElementsAre("a", "bc"));
  EXPECT_THAT(errors, ElementsAre("bad"));
}

TEST_F(TensorCallTest, CancellingAStreamEndsItsRequests) {
  server_.tensor_control().Hold();
  grpc::ClientContext context;
  auto stream = server_.open_inference().ModelStreamInfer(&context);
  stream->Write(TensorInferRequest("held"));
  server_.tensor_control().WaitUntilHeld();
  stream->Write(TensorInferRequest("waiting"));
  ASSERT_TRUE(server_.WaitForMetric("evaserve_requests_in_flight", 2));

  context.TryCancel();

  stream->Finish();
  server_.tensor_control().Release();
  EXPECT_TRUE(server_.WaitForMetric("evaserve_requests_in_flight", 0));
}

TEST_F(TensorCallTest, ItHasNoTextToContinue) {
  grpc::ClientContext context;
  v1::ScoreRequest request;
  request.set_model("tensors");
  request.set_text("abc");
  v1::ScoreResponse response;

  const grpc::Status status = server_.evaserve().Score(&context, request, &response);

  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_THAT(status.error_message(), HasSubstr("takes tensors (ModelInfer)"));
}

TEST_F(TensorCallTest, TellsItsTensors) {
  grpc::ClientContext first, second;
  inference::ModelMetadataRequest metadata_of;
  metadata_of.set_name("tensors");
  inference::ModelMetadataResponse metadata;
  inference::ModelConfigRequest config_of;
  config_of.set_name("tensors");
  inference::ModelConfigResponse config;

  ASSERT_TRUE(server_.open_inference().ModelMetadata(&first, metadata_of, &metadata).ok());
  ASSERT_TRUE(server_.open_inference().ModelConfig(&second, config_of, &config).ok());

  EXPECT_EQ(metadata.inputs(0).datatype(), "UINT8");
  EXPECT_THAT(metadata.outputs(0).shape(), ElementsAre(-1, -1));
  EXPECT_EQ(config.config().input(0).data_type(), inference::TYPE_UINT8);
  EXPECT_THAT(config.config().input(0).dims(), ElementsAre(-1));
  EXPECT_EQ(config.config().max_batch_size(), 64);
}

TEST(TensorConfigTest, WithoutBatchesShapesAreWhole) {
  RecordingObserver observer;
  const TensorEngine engine(std::make_unique<FakeTensorModel>(), {.max_batch_size = 0}, observer);
  inference::ModelConfig config;

  FillTensorConfig(engine, config);

  EXPECT_EQ(config.max_batch_size(), 0);
  EXPECT_THAT(config.input(0).dims(), ElementsAre(-1, -1));
}

}  // namespace
}  // namespace evaserve
