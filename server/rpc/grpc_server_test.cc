#include "server/rpc/grpc_server.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "inference/open_inference.grpc.pb.h"
#include "models/testing/temp_dir.h"
#include "server/metrics/metrics.h"
#include "server/testing/captured_log.h"

namespace evaserve {
namespace {

using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;
using ::testing::HasSubstr;

class GrpcServerTest : public ::testing::Test {
 protected:
  GrpcServerTest() {
    auto server = GrpcServer::Start(Options(), {models_, control_, statistics_, state_, log_});
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    health_ = Health::NewStub(grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->port()),
                                                  grpc::InsecureChannelCredentials()));
  }

  GrpcServerOptions Options() const {
    GrpcServerOptions options;
    options.address = "127.0.0.1:0";
    options.authorizer = &authorizer_;
    return options;
  }

  absl::StatusOr<HealthCheckResponse::ServingStatus> Check(const std::string& name) {
    grpc::ClientContext context;
    HealthCheckRequest request;
    request.set_service(name);
    HealthCheckResponse response;
    const grpc::Status status = health_->Check(&context, request, &response);
    if (status.ok()) return response.status();
    return absl::Status(static_cast<absl::StatusCode>(status.error_code()), "");
  }

  Metrics metrics_{"test"};
  InferenceStatistics statistics_;
  RequestLog log_{metrics_, statistics_};
  ServingState state_;
  Authorizer authorizer_;
  ModelRepository models_{ModelRepository::Options()};
  RepositoryControl control_{RepositoryControl::Options(), models_};
  std::unique_ptr<GrpcServer> server_;
  std::unique_ptr<Health::Stub> health_;
};

class Watcher {
 public:
  Watcher(Health::Stub& health, const std::string& name) {
    HealthCheckRequest request;
    request.set_service(name);
    reader_ = health.Watch(&context_, request);
  }

  HealthCheckResponse::ServingStatus Next() {
    HealthCheckResponse response;
    EXPECT_TRUE(reader_->Read(&response));
    return response.status();
  }

  ~Watcher() { context_.TryCancel(); }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<HealthCheckResponse>> reader_;
};

TEST_F(GrpcServerTest, ServesNothingBeforeItIsTold) {
  EXPECT_EQ(*Check(""), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(*Check("evaserve.v1.Inference"), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(*Check("inference.GRPCInferenceService"), HealthCheckResponse::NOT_SERVING);
}

TEST_F(GrpcServerTest, KnowsTheHealthOfServerServicesAndModels) {
  server_->SetServing(true);
  server_->SetModelServing("a", true);
  server_->SetModelServing("b", false);

  EXPECT_EQ(*Check(""), HealthCheckResponse::SERVING);
  EXPECT_EQ(*Check("evaserve.v1.Inference"), HealthCheckResponse::SERVING);
  EXPECT_EQ(*Check("inference.GRPCInferenceService"), HealthCheckResponse::SERVING);
  EXPECT_EQ(*Check("a"), HealthCheckResponse::SERVING);
  EXPECT_EQ(*Check("b"), HealthCheckResponse::NOT_SERVING);
}

TEST_F(GrpcServerTest, TheHealthOfNothingIsNotFound) {
  EXPECT_EQ(Check("nobody").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(GrpcServerTest, WatchersHearOfEachChange) {
  Watcher watcher(*health_, "");
  EXPECT_EQ(watcher.Next(), HealthCheckResponse::NOT_SERVING);

  server_->SetServing(true);
  EXPECT_EQ(watcher.Next(), HealthCheckResponse::SERVING);

  server_->SetNotServingForGood();
  EXPECT_EQ(watcher.Next(), HealthCheckResponse::NOT_SERVING);
}

TEST_F(GrpcServerTest, WatchersOfAModelHearWhenItComes) {
  Watcher watcher(*health_, "late");
  EXPECT_EQ(watcher.Next(), HealthCheckResponse::SERVICE_UNKNOWN);

  server_->SetModelServing("late", true);

  EXPECT_EQ(watcher.Next(), HealthCheckResponse::SERVING);
}

TEST_F(GrpcServerTest, NothingServesAgainAfterTheEnd) {
  server_->SetModelServing("a", true);
  server_->SetNotServingForGood();
  server_->SetModelServing("a", true);

  EXPECT_EQ(*Check("a"), HealthCheckResponse::NOT_SERVING);
}

TEST_F(GrpcServerTest, AWatcherDoesNotHoldUpShutdown) {
  Watcher watcher(*health_, "");
  watcher.Next();

  EXPECT_TRUE(server_->Shutdown(Clock::now(), TimePoint::max()));
}

TEST_F(GrpcServerTest, TheBeginOfItsEndClosesThePortAndDisturbsNoCall) {
  Watcher watcher(*health_, "");
  EXPECT_EQ(watcher.Next(), HealthCheckResponse::NOT_SERVING);

  server_->BeginShutdown();

  grpc::ChannelArguments own_connection;
  own_connection.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  health_ = Health::NewStub(grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", server_->port()),
                                                      grpc::InsecureChannelCredentials(),
                                                      own_connection));
  EXPECT_EQ(Check("").status().code(), absl::StatusCode::kUnavailable);
  server_->SetServing(true);
  EXPECT_EQ(watcher.Next(), HealthCheckResponse::SERVING);
  EXPECT_FALSE(server_->Shutdown(TimePoint::max(), /*limit=*/Clock::now()));
}

TEST_F(GrpcServerTest, APortInUseIsAnError) {
  GrpcServerOptions options = Options();
  options.address = absl::StrCat("127.0.0.1:", server_->port());

  const absl::Status status =
      GrpcServer::Start(options, {models_, control_, statistics_, state_, log_}).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(options.address));
}

TEST_F(GrpcServerTest, TheLogNamesTheTokenOfARefusedCall) {
  const TempDir directory;
  WriteFile(directory.path() / "tokens",  // of "secret", as sha256sum says
            "alice 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b *\n");
  const auto authorizer = *Authorizer::Load(directory.path() / "tokens");
  GrpcServerOptions options = Options();
  options.authorizer = authorizer.get();
  const CapturedLog log;
  const auto server = *GrpcServer::Start(options, {models_, control_, statistics_, state_, log_});
  const auto stub = inference::GRPCInferenceService::NewStub(grpc::CreateChannel(
      absl::StrCat("127.0.0.1:", server->port()), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer secret");
  inference::LogSettingsResponse response;

  const grpc::Status status = stub->LogSettings(&context, {}, &response);

  EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(status.error_message(), HasSubstr("administer"));
  EXPECT_EQ(log.Count("alice"), 2);  // as the client, and in the message
  server->Shutdown(Clock::now(), TimePoint::max());
}

TEST_F(GrpcServerTest, NonsenseForAnAddressIsAnError) {
  GrpcServerOptions options = Options();
  options.address = "nonsense";

  const absl::Status status =
      GrpcServer::Start(options, {models_, control_, statistics_, state_, log_}).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace evaserve
