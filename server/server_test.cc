#include "server/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "models/testing/temp_dir.h"
#include "server/testing/fake_model_server.h"
#include "server/testing/server_calls.h"

namespace evaserve {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST(ServerTest, IsReadyOverHttp) {
  FakeModelServer server;

  EXPECT_EQ(server.Get("/healthz"), "200\nok\n");
  EXPECT_EQ(server.Get("/readyz"), "200\nok\n");
}

TEST(ServerTest, AStepThatDoesNotEndMakesItUnhealthyForThatTime) {
  FakeModelServer server({.config = {.step_timeout = milliseconds(20)}});
  server.control().Hold();
  std::thread client([&] { EXPECT_TRUE(GenerateOne(server).ok()); });

  EXPECT_EQ(server.GetOnce("/readyz", "503"), "503\na model's step does not end\n");
  EXPECT_THAT(server.Get("/healthz"), StartsWith("503"));
  EXPECT_GT(server.MetricValue("evaserve_step_age_seconds{model=\"fake\"}"), 0.02);

  server.control().Release();
  client.join();
  EXPECT_EQ(server.GetOnce("/readyz", "200"), "200\nok\n");
  EXPECT_EQ(server.Get("/healthz"), "200\nok\n");
}

bool IsServing(const FakeModelServer& server, const std::string& service) {
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  grpc::health::v1::HealthCheckResponse response;
  grpc::ClientContext context;
  const auto health = grpc::health::v1::Health::NewStub(server.Connect());
  EXPECT_TRUE(health->Check(&context, request, &response).ok());
  return response.status() == grpc::health::v1::HealthCheckResponse::SERVING;
}

TEST(ServerTest, AModelWhoseStepDoesNotEndStaysUnhealthyWhateverElseHappensToIt) {
  FakeModelServer server(
      {.config = {.model_control_mode = ControlMode::kExplicit, .step_timeout = milliseconds(20)}});
  server.control().Hold();
  std::thread client([&] { EXPECT_TRUE(GenerateOne(server).ok()); });
  EXPECT_THAT(server.GetOnce("/readyz", "503"), StartsWith("503"));
  EXPECT_FALSE(IsServing(server, "fake"));

  EXPECT_FALSE(LoadAnew(server, "fake").ok()) << "it can be loaded once only";

  EXPECT_FALSE(IsServing(server, "fake"));
  server.control().Release();
  client.join();
  EXPECT_EQ(server.GetOnce("/readyz", "200"), "200\nok\n");
  EXPECT_TRUE(IsServing(server, "fake"));
}

grpc::Status Unload(FakeModelServer& server, const std::string& model) {
  inference::RepositoryModelUnloadRequest request;
  request.set_model_name(model);
  inference::RepositoryModelUnloadResponse response;
  grpc::ClientContext context;
  return server.open_inference().RepositoryModelUnload(&context, request, &response);
}

// An alert tells of models that are not ready.
TEST(ServerTest, AModelThatIsUnloadedLeavesTheMetricsUntilALoadFails) {
  FakeModelServer server({.config = {.model_control_mode = ControlMode::kExplicit}});
  EXPECT_THAT(server.Get("/metrics"), HasSubstr("evaserve_model_ready{model=\"fake\"} 1\n"));

  EXPECT_TRUE(Unload(server, "fake").ok());
  EXPECT_THAT(server.Get("/metrics"), Not(HasSubstr("evaserve_model_ready{")));

  EXPECT_FALSE(LoadAnew(server, "fake").ok()) << "it can be loaded once only";
  EXPECT_THAT(server.Get("/metrics"), HasSubstr("evaserve_model_ready{model=\"fake\"} 0\n"));
}

// A model's settings that a repository begins with are wrong.
class MissingModelTest : public ::testing::Test {
 protected:
  MissingModelTest() {
    std::filesystem::create_directory(repository_.path() / "tensors");
    WriteFile(repository_.path() / "tensors" / "config.json", "{}");
    WriteFile(Settings(), R"({"max_runing": 1})");
  }

  std::filesystem::path Settings() const { return repository_.path() / "tensors" / "serving.json"; }
  FakeModelServer::Options OptionsWith(bool strict_readiness) const {
    FakeModelServer::Options options;
    options.config.model_repository = repository_.path();
    options.config.model_control_mode = ControlMode::kExplicit;
    options.config.load_models = {"*"};
    options.config.strict_readiness = strict_readiness;
    return options;
  }

  static bool ServerReady(FakeModelServer& server) {
    grpc::ClientContext context;
    inference::ServerReadyResponse response;
    EXPECT_TRUE(server.open_inference().ServerReady(&context, {}, &response).ok());
    return response.ready();
  }
  static bool ModelReady(FakeModelServer& server, const std::string& model) {
    grpc::ClientContext context;
    inference::ModelReadyRequest request;
    request.set_name(model);
    inference::ModelReadyResponse response;
    EXPECT_TRUE(server.open_inference().ModelReady(&context, request, &response).ok());
    return response.ready();
  }

  const TempDir repository_;
};

TEST_F(MissingModelTest, KeepsTheServerFromBeingReadyUntilItIsLoaded) {
  FakeModelServer server(OptionsWith(/*strict_readiness=*/true));

  EXPECT_EQ(server.Get("/readyz"),
            "503\nmodels that were to be loaded at the start are missing: tensors\n");
  EXPECT_EQ(server.Get("/healthz"), "200\nok\n");
  EXPECT_FALSE(IsServing(server, ""));
  EXPECT_FALSE(ServerReady(server));
  EXPECT_TRUE(IsServing(server, "fake"));
  EXPECT_TRUE(ModelReady(server, "fake"));

  WriteFile(Settings(), "{}");
  EXPECT_TRUE(LoadAnew(server, "tensors").ok());
  EXPECT_EQ(server.Get("/readyz"), "200\nok\n");
  EXPECT_TRUE(IsServing(server, ""));
  EXPECT_TRUE(ServerReady(server));
}

TEST_F(MissingModelTest, IsNotMissedWhenAClientUnloadsIt) {
  FakeModelServer server(OptionsWith(/*strict_readiness=*/true));

  EXPECT_TRUE(Unload(server, "tensors").ok());

  EXPECT_EQ(server.Get("/readyz"), "200\nok\n");
  EXPECT_TRUE(IsServing(server, ""));
}

TEST_F(MissingModelTest, IsNotMissedWhereReadinessIsNotStrict) {
  FakeModelServer server(OptionsWith(/*strict_readiness=*/false));

  EXPECT_EQ(server.Get("/readyz"), "200\nok\n");
  EXPECT_TRUE(IsServing(server, ""));
  EXPECT_TRUE(ServerReady(server));
}

TEST(ServerTest, IsAliveAndNotReadyWhileItLoads) {
  absl::Notification may_load;
  FakeModelServer server(
      {.before_load = [&](const std::string&) { may_load.WaitForNotification(); }});

  EXPECT_EQ(server.Get("/healthz"), "200\nok\n");
  EXPECT_EQ(server.Get("/readyz"), "503\nthe server is loading its models\n");

  may_load.Notify();
  EXPECT_TRUE(server.server().WaitUntilLoaded().ok());
  EXPECT_EQ(server.Get("/readyz"), "200\nok\n");
}

TEST(ServerTest, ADeviceThatIsLostWhileItLoadsKeepsItFromServing) {
  absl::Notification may_load;
  FakeModelServer server({.serves_tensors = true, .before_load = [&](const std::string& model) {
                            if (model == "tensors") may_load.WaitForNotification();
                          }});
  server.control().FailIf(
      [](std::span<const TokenId>) { return absl::UnavailableError("the device is lost: boom"); });
  EXPECT_TRUE(server.WaitForMetric("evaserve_model_ready{model=\"fake\"}", 1));
  grpc::ClientContext context;
  v1::GenerateRequest request = GreedyRequest("ab", 1);
  request.set_model("fake");
  EXPECT_FALSE(ReadAll(*server.evaserve().Generate(&context, request)).status.ok());

  may_load.Notify();
  EXPECT_TRUE(server.server().WaitUntilLoaded().ok());

  EXPECT_TRUE(server.server().has_failed());
  EXPECT_THAT(server.Get("/readyz"), StartsWith("503"));
}

TEST(ServerTest, AModelThatDoesNotLoadIsNamed) {
  Config config;
  config.models = {{"broken", "/some/where"}};
  config.address = "127.0.0.1:0";
  config.metrics_address = "";

  const absl::Status status =
      Server::Start(config, [](auto&&...) -> absl::StatusOr<std::unique_ptr<Model>> {
        return absl::NotFoundError("config.json is missing");
      }).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("model 'broken' in /some/where: config.json is missing"));
}

TEST(ServerTest, AMetricsPortInUseIsAnError) {
  FakeModelServer server;
  Config config;
  config.address = "127.0.0.1:0";
  config.metrics_address = absl::StrCat("127.0.0.1:", server.server().metrics_port());

  const absl::Status status = Server::Start(config).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(config.metrics_address));
}

TEST(ServerTest, MetricsCanBeOff) {
  Config config;
  config.address = "127.0.0.1:0";
  config.metrics_address = "";

  const auto server = Server::Start(config);

  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ((*server)->metrics_port(), 0);
}

TEST(ServerTest, MetricsCountKnownTraffic) {
  FakeModelServer server;
  {
    grpc::ClientContext context;
    ReadAll(*server.evaserve().Generate(&context, GreedyRequest("abcd", 10)));
  }
  grpc::ClientContext context;
  v1::ScoreRequest request;
  v1::ScoreResponse response;
  server.evaserve().Score(&context, request, &response);  // without a text
  ASSERT_TRUE(server.WaitForMetric("evaserve_requests_in_flight", 0));

  const auto of = [&](const std::string& name) { return server.MetricValue(name); };
  EXPECT_EQ(of("evaserve_requests_total{code=\"OK\",method=\"Generate\",model=\"fake\"}"), 1);
  EXPECT_EQ(
      of("evaserve_requests_total{code=\"INVALID_ARGUMENT\",method=\"Score\",model=\"fake\"}"), 1);
  EXPECT_EQ(of("evaserve_request_duration_seconds_count{method=\"Generate\",model=\"fake\"}"), 1);
  EXPECT_EQ(of("evaserve_input_bytes_total{model=\"fake\"}"), 4);
  EXPECT_EQ(of("evaserve_output_bytes_total{model=\"fake\"}"), 10);
  EXPECT_EQ(of("evaserve_queue_wait_seconds_count{model=\"fake\"}"), 1);
  EXPECT_EQ(of("evaserve_time_to_first_byte_seconds_count{model=\"fake\",prompt_tokens=\"<1K\"}"),
            1);
  EXPECT_EQ(of("evaserve_time_between_bytes_seconds_count{model=\"fake\"}"), 9);
  EXPECT_EQ(of("evaserve_step_duration_seconds_count{model=\"fake\"}"), 10);
  EXPECT_EQ(of("evaserve_prefill_tokens_total{model=\"fake\"}"), 5);
  EXPECT_EQ(of("evaserve_decode_tokens_total{model=\"fake\"}"), 9);
  EXPECT_EQ(of("evaserve_running_sequences{model=\"fake\"}"), 0);
  EXPECT_EQ(of("evaserve_waiting_requests{model=\"fake\"}"), 0);
  EXPECT_EQ(of("evaserve_state_pages_used{model=\"fake\"}"), 0);
  EXPECT_EQ(of("evaserve_state_pages_total{model=\"fake\"}"), 10000);
  EXPECT_EQ(of("evaserve_model_ready{model=\"fake\"}"), 1);
  EXPECT_GT(of("process_resident_memory_bytes"), 1e6);
}

TEST(ServerTest, ClientsThatVanishLeaveNothingBehind) {
  FakeModelServer server;
  server.control().SetStepTime(milliseconds(1));
  const auto vanish = [&server](int times) {
    for (int i = 0; i < times; ++i) {
      BusyStream busy(server);
      busy.context.TryCancel();
    }
  };
  vanish(200);
  const double threads = server.MetricValue("process_threads");

  vanish(2000);

  EXPECT_TRUE(server.WaitForMetric("evaserve_requests_in_flight", 0));
  EXPECT_TRUE(server.WaitForMetric("evaserve_running_sequences{model=\"fake\"}", 0));
  EXPECT_TRUE(server.WaitForMetric("evaserve_state_pages_used{model=\"fake\"}", 0));
  EXPECT_EQ(server.control().live_sequences(), 0);
  // gRPC's own pools, the client's too, grow and shrink by a few threads.
  EXPECT_LE(server.MetricValue("process_threads"), threads + 20);
  EXPECT_TRUE(GenerateOne(server).ok());
}

}  // namespace
}  // namespace evaserve
