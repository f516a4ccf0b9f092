// What clients see of a server that has no room for their requests, by --overload-status.
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "inference/open_inference.grpc.pb.h"
#include "server/rpc/infer_test_util.h"
#include "tests/e2e/test_server.h"

namespace evaserve {
namespace {

using inference::ModelInferRequest;
using testing::HasSubstr;

// How a call ended, and what it said about another try.
struct End {
  grpc::StatusCode code = grpc::StatusCode::OK;
  int code_in_details = 0;  // of a status with a RetryInfo; else 0
  size_t num_pushbacks = 0;

  friend bool operator==(const End&, const End&) = default;
};

std::ostream& operator<<(std::ostream& out, const End& end) {
  return out << "code " << end.code << ", in details " << end.code_in_details << ", pushbacks "
             << end.num_pushbacks;
}

constexpr End kUnavailable{grpc::StatusCode::UNAVAILABLE, grpc::StatusCode::UNAVAILABLE, 1};
constexpr End kExhausted{grpc::StatusCode::RESOURCE_EXHAUSTED, grpc::StatusCode::RESOURCE_EXHAUSTED,
                         1};

// A server on which one sequence runs, for ever.
class OverloadTest : public testing::Test {
 protected:
  void Start(Config config) {
    config.max_running = 1;
    server_ = std::make_unique<TestServer>(config);
    channel_ = grpc::CreateChannel(server_->target(), grpc::InsecureChannelCredentials());
    evaserve_ = v1::Inference::NewStub(channel_);
    open_inference_ = inference::GRPCInferenceService::NewStub(channel_);
    running_.emplace(server_->client().Generate(EndlessRequest()));
    ASSERT_TRUE(running_->Next().has_value());
  }

  // Takes the place of one that waits.
  void FillTheQueue() {
    waiting_.emplace(server_->client().Generate(EndlessRequest()));
    server_->WaitForMetric("evaserve_waiting_requests", 1);
  }

  static End EndOf(const grpc::Status& status, const grpc::ClientContext& context) {
    google::rpc::Status details;
    details.ParseFromString(status.error_details());
    const bool has_retry_info =
        details.details_size() == 1 && details.details(0).Is<google::rpc::RetryInfo>();
    return {.code = status.error_code(),
            .code_in_details = has_retry_info ? details.code() : 0,
            .num_pushbacks = context.GetServerTrailingMetadata().count("grpc-retry-pushback-ms")};
  }

  End Generate() const {
    grpc::ClientContext context;
    auto reader = evaserve_->Generate(&context, GreedyRequest("abc", 1));
    for (v1::GenerateResponse response; reader->Read(&response);) {
    }
    return EndOf(reader->Finish(), context);
  }

  End Score() const {
    grpc::ClientContext context;
    v1::ScoreRequest request;
    request.set_text("abc");
    v1::ScoreResponse response;
    return EndOf(evaserve_->Score(&context, request, &response), context);
  }

  static ModelInferRequest InferRequestForTiny() {
    ModelInferRequest request = InferRequest({"abc"});
    request.set_model_name("tiny");
    return request;
  }

  End Infer() const {
    grpc::ClientContext context;
    inference::ModelInferResponse response;
    return EndOf(open_inference_->ModelInfer(&context, InferRequestForTiny(), &response), context);
  }

  // One request on a stream that ends with its error.
  End StreamInfer() const {
    grpc::ClientContext context;
    context.AddMetadata("triton_grpc_error", "true");
    auto stream = open_inference_->ModelStreamInfer(&context);
    stream->Write(InferRequestForTiny());
    for (inference::ModelStreamInferResponse response; stream->Read(&response);) {
    }
    return EndOf(stream->Finish(), context);
  }

  // `error_code` of one request on a stream that goes on.
  std::string StreamErrorCode() const {
    grpc::ClientContext context;
    auto stream = open_inference_->ModelStreamInfer(&context);
    stream->Write(InferRequestForTiny());
    inference::ModelStreamInferResponse response;
    EXPECT_TRUE(stream->Read(&response));
    return response.infer_response().parameters().at("error_code").string_param();
  }

  std::unique_ptr<TestServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> evaserve_;
  std::unique_ptr<inference::GRPCInferenceService::Stub> open_inference_;
  std::optional<GenerateStream> running_;
  std::optional<GenerateStream> waiting_;
};

TEST_F(OverloadTest, AFullQueueIsResourceExhaustedByDefault) {
  Start({.max_waiting = 1});
  FillTheQueue();

  EXPECT_EQ(Generate(), kExhausted);
  EXPECT_EQ(Score(), kExhausted);
  EXPECT_EQ(Infer(), kExhausted);
  EXPECT_EQ(StreamInfer(), kExhausted);
  EXPECT_EQ(StreamErrorCode(), "RESOURCE_EXHAUSTED");
}

TEST_F(OverloadTest, AFullQueueIsUnavailableIfAskedFor) {
  Start({.max_waiting = 1, .overload_status = OverloadStatus::kUnavailable});
  FillTheQueue();

  EXPECT_EQ(Generate(), kUnavailable);
  EXPECT_EQ(Score(), kUnavailable);
  EXPECT_EQ(Infer(), kUnavailable);
  EXPECT_EQ(StreamInfer(), kUnavailable);
  EXPECT_EQ(StreamErrorCode(), "UNAVAILABLE");
}

TEST_F(OverloadTest, TooManyWaitingTokensAreUnavailableToo) {
  Start({.max_waiting_tokens = 4, .overload_status = OverloadStatus::kUnavailable});
  FillTheQueue();

  EXPECT_EQ(Score(), kUnavailable);
}

TEST_F(OverloadTest, TheMetricsTellTheCodeThatTheClientSaw) {
  Start({.max_waiting = 1, .overload_status = OverloadStatus::kUnavailable});
  FillTheQueue();
  Score();
  StreamErrorCode();
  server_->WaitForMetric("evaserve_requests_in_flight", 2);

  const std::string page = server_->HttpGet("/metrics");
  EXPECT_THAT(page, HasSubstr("{code=\"UNAVAILABLE\",method=\"Score\",model=\"tiny\"} 1\n"));
  EXPECT_THAT(page,
              HasSubstr("{code=\"UNAVAILABLE\",method=\"ModelStreamInfer\",model=\"tiny\"} 1\n"));
  EXPECT_THAT(page, testing::Not(HasSubstr("RESOURCE_EXHAUSTED")));
}

TEST_F(OverloadTest, ALongWaitIsDeadlineExceededByDefault) {
  Start({.max_queue_time = std::chrono::milliseconds(30)});

  EXPECT_EQ(Generate(), End{grpc::StatusCode::DEADLINE_EXCEEDED});
  EXPECT_EQ(Infer(), End{grpc::StatusCode::DEADLINE_EXCEEDED});
}

TEST_F(OverloadTest, ALongWaitIsUnavailableIfAskedFor) {
  Start({.max_queue_time = std::chrono::milliseconds(30),
         .overload_status = OverloadStatus::kUnavailable});

  EXPECT_EQ(Generate(), kUnavailable);
  EXPECT_EQ(Infer(), kUnavailable);
  EXPECT_EQ(StreamErrorCode(), "UNAVAILABLE");
}

}  // namespace
}  // namespace evaserve
