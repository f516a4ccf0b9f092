#include "server/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "models/testing/temp_dir.h"
#include "server/rpc/infer_test_util.h"
#include "server/testing/fake_model_server.h"

namespace evaserve {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

grpc::Status GenerateOne(FakeModelServer& server) {
  grpc::ClientContext context;
  return ReadAll(*server.evaserve().Generate(&context, GreedyRequest("ab", 1))).status;
}

// A stream that the model has begun to answer and will go on with for as long as it may.
struct BusyStream {
  explicit BusyStream(FakeModelServer& server, uint64_t max_new_tokens = 4000)
      : reader(server.evaserve().Generate(&context, GreedyRequest("ab", max_new_tokens))) {
    v1::GenerateResponse message;
    EXPECT_TRUE(reader->Read(&message));
  }

  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader;
};

TEST(ServerTest, IsReadyOverHttp) {
  FakeModelServer server;

  EXPECT_EQ(server.Get("/healthz"), "200\nok\n");
  EXPECT_EQ(server.Get("/readyz"), "200\nok\n");
}

// What GET of `path` answers, once it begins with `start`; after 10 s, whatever it is.
std::string GetOnceItIs(const std::string& start, const FakeModelServer& server,
                        const std::string& path) {
  for (int i = 0; i < 1000 && !server.Get(path).starts_with(start); ++i) {
    std::this_thread::sleep_for(milliseconds(10));
  }
  return server.Get(path);
}

TEST(ServerTest, AStepThatDoesNotEndMakesItUnhealthyForThatTime) {
  FakeModelServer server({.config = {.step_timeout = milliseconds(20)}});
  server.control().Hold();
  std::thread client([&] { EXPECT_TRUE(GenerateOne(server).ok()); });

  EXPECT_EQ(GetOnceItIs("503", server, "/readyz"), "503\na model's step does not end\n");
  EXPECT_THAT(server.Get("/healthz"), StartsWith("503"));
  EXPECT_GT(server.MetricValue("evaserve_step_age_seconds{model=\"fake\"}"), 0.02);

  server.control().Release();
  client.join();
  EXPECT_EQ(GetOnceItIs("200", server, "/readyz"), "200\nok\n");
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

// Asks for a model anew, with other settings.
grpc::Status LoadAnew(FakeModelServer& server, const std::string& model) {
  inference::RepositoryModelLoadRequest request;
  request.set_model_name(model);
  (*request.mutable_parameters())["config"].set_string_param(R"({"max_running": 3})");
  inference::RepositoryModelLoadResponse response;
  grpc::ClientContext context;
  return server.open_inference().RepositoryModelLoad(&context, request, &response);
}

TEST(ServerTest, AModelWhoseStepDoesNotEndStaysUnhealthyWhateverElseHappensToIt) {
  FakeModelServer server(
      {.config = {.model_control_mode = ControlMode::kExplicit, .step_timeout = milliseconds(20)}});
  server.control().Hold();
  std::thread client([&] { EXPECT_TRUE(GenerateOne(server).ok()); });
  EXPECT_THAT(GetOnceItIs("503", server, "/readyz"), StartsWith("503"));
  EXPECT_FALSE(IsServing(server, "fake"));

  EXPECT_FALSE(LoadAnew(server, "fake").ok()) << "it can be loaded once only";

  EXPECT_FALSE(IsServing(server, "fake"));
  server.control().Release();
  client.join();
  EXPECT_EQ(GetOnceItIs("200", server, "/readyz"), "200\nok\n");
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

// Load balancers hear of the end before requests are refused.
TEST(ServerTest, TakesRequestsInThePauseBeforeItDrains) {
  FakeModelServer server({.config = {.drain_pause = milliseconds(1500)}});
  std::thread shutdown([&] { server.server().Shutdown(); });

  EXPECT_THAT(GetOnceItIs("503", server, "/readyz"), HasSubstr("shutting down"));
  EXPECT_TRUE(GenerateOne(server).ok());
  shutdown.join();
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

TEST(ServerTest, ItsEndDoesNotWaitForALoadAndNothingMoreIsLoaded) {
  absl::Notification may_load;
  std::atomic<int> num_loads = 0;
  {
    FakeModelServer server({.serves_tensors = true, .before_load = [&](const std::string&) {
                              ++num_loads;
                              may_load.WaitForNotification();
                            }});
    while (num_loads == 0) std::this_thread::yield();

    server.server().Shutdown();

    EXPECT_TRUE(server.server().is_loading());
    EXPECT_TRUE(absl::IsUnavailable(server.server().WaitUntilLoaded()));
    may_load.Notify();
    EXPECT_TRUE(server.WaitForMetric("evaserve_model_ready{model=\"fake\"}", 1));
    EXPECT_THAT(server.Get("/readyz"), StartsWith("503\nthe server is shutting down"));
  }
  EXPECT_EQ(num_loads, 1);
}

TEST(ServerTest, ItsEndDoesNotWaitForALoadThatAClientAskedFor) {
  absl::Notification may_load;
  std::atomic<int> num_loads = 0;
  FakeModelServer server({.config = {.model_control_mode = ControlMode::kExplicit},
                          .before_load = [&](const std::string&) {
                            if (++num_loads > 1) may_load.WaitForNotification();
                          }});
  EXPECT_TRUE(server.server().WaitUntilLoaded().ok());
  grpc::Status status;
  std::thread client([&] { status = LoadAnew(server, "fake"); });
  while (num_loads < 2) std::this_thread::yield();

  const TimePoint start = Clock::now();
  EXPECT_TRUE(server.server().Shutdown());

  EXPECT_LT(Clock::now() - start, Config().drain_timeout / 2);
  client.join();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(status.error_message(), "the server is shutting down");
  EXPECT_TRUE(server.server().is_loading());
  may_load.Notify();
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

TEST(ServerTest, StreamsFinishWhenItShutsDown) {
  FakeModelServer server;
  server.control().Hold();
  server.control().AllowSteps(1);
  BusyStream busy(server, /*max_new_tokens=*/100);

  std::thread shutdown([&] { EXPECT_TRUE(server.server().Shutdown()); });
  while (server.Get("/readyz").starts_with("200")) std::this_thread::yield();
  server.control().Release();
  const GeneratedText rest = ReadAll(*busy.reader);
  shutdown.join();

  EXPECT_TRUE(rest.status.ok()) << rest.status.error_message();
  EXPECT_EQ(rest.text.size(), 99u);
  EXPECT_THAT(server.Get("/readyz"), StartsWith("503\nthe server is shutting down"));
  EXPECT_THAT(server.Get("/healthz"), StartsWith("200"));
}

// Who would be refused is to connect to another replica, not to try this one again.
TEST(ServerTest, ClientsAreSentElsewhereWhileAnswersGoOn) {
  FakeModelServer server;
  const auto channel = server.Connect();
  const auto stub = v1::Inference::NewStub(channel);
  server.control().Hold();
  server.control().AllowSteps(1);
  grpc::ClientContext context;
  const auto reader = stub->Generate(&context, GreedyRequest("ab", 100));
  v1::GenerateResponse message;
  EXPECT_TRUE(reader->Read(&message));

  std::thread shutdown([&] { EXPECT_TRUE(server.server().Shutdown()); });

  const auto soon = std::chrono::system_clock::now() + std::chrono::seconds(10);
  EXPECT_TRUE(channel->WaitForStateChange(GRPC_CHANNEL_READY, soon)) << "nobody told the client";
  grpc::ClientContext late;
  const GeneratedText refused = ReadAll(*stub->Generate(&late, GreedyRequest("ab", 1)));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(refused.status.error_message(), HasSubstr("failed to connect"));
  server.control().Release();
  const GeneratedText rest = ReadAll(*reader);
  EXPECT_TRUE(rest.status.ok()) << rest.status.error_message();
  EXPECT_EQ(rest.text.size(), 99u);
  shutdown.join();
}

TEST(ServerTest, OpenStreamsWithoutARequestDoNotHoldUpItsEnd) {
  FakeModelServer server;
  grpc::ClientContext watch, infer;
  const auto health = grpc::health::v1::Health::NewStub(server.Connect());
  const auto watcher = health->Watch(&watch, {});
  grpc::health::v1::HealthCheckResponse serving;
  EXPECT_TRUE(watcher->Read(&serving));
  const auto stream = server.open_inference().ModelStreamInfer(&infer);
  EXPECT_TRUE(stream->Write(InferRequest({"ab"})));
  inference::ModelStreamInferResponse answer;
  EXPECT_TRUE(stream->Read(&answer));

  const TimePoint start = Clock::now();
  EXPECT_TRUE(server.server().Shutdown());

  EXPECT_LT(Clock::now() - start, Config().drain_timeout / 2);
  while (stream->Read(&answer)) {
  }
  EXPECT_FALSE(stream->Finish().ok());
}

// The last that `stream` answers to the prompt `index`.
v1::GenerateStreamResponse AnswerTo(
    uint64_t index, const std::string& prompt,
    grpc::ClientReaderWriter<v1::GenerateStreamRequest, v1::GenerateStreamResponse>& stream) {
  v1::GenerateStreamRequest request;
  request.set_index(index);
  *request.mutable_begin()->mutable_request() = GreedyRequest(prompt, 1);
  EXPECT_TRUE(stream.Write(request));
  v1::GenerateStreamResponse answer;
  while (stream.Read(&answer) && !answer.has_error() && !answer.response().has_finish()) {
  }
  return answer;
}

// Only want of room is worth another try in a moment.
TEST(ServerTest, AnOpenStreamGetsUnavailableForWhatComesLateAndNoHintToTryAgain) {
  FakeModelServer server({.config = {.overload_status = OverloadStatus::kUnavailable}});
  const auto channel = server.Connect();
  grpc::ClientContext context;
  const auto stream = v1::Inference::NewStub(channel)->GenerateStream(&context);
  EXPECT_TRUE(AnswerTo(1, "ab", *stream).has_response());
  server.control().Hold();
  server.control().AllowSteps(1);
  BusyStream busy(server, /*max_new_tokens=*/100);

  std::thread shutdown([&] { EXPECT_TRUE(server.server().Shutdown()); });
  channel->WaitForStateChange(GRPC_CHANNEL_READY,
                              std::chrono::system_clock::now() + std::chrono::seconds(10));

  const v1::GenerateStreamResponse late = AnswerTo(2, "ab", *stream);
  EXPECT_EQ(late.error().code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(late.error().retry_seconds(), 0);
  server.control().Release();
  EXPECT_TRUE(ReadAll(*busy.reader).status.ok());
  shutdown.join();
}

TEST(ServerTest, AStepThatDoesNotEndDoesNotHoldUpItsEnd) {
  FakeModelServer server({.config = {.drain_timeout = std::chrono::seconds(0)}});
  server.control().Hold();
  std::thread client([&] { EXPECT_FALSE(GenerateOne(server).ok()); });
  server.control().WaitUntilHeld();

  EXPECT_FALSE(server.server().Shutdown(/*patience=*/milliseconds(50)));

  client.join();  // it has been told
  server.control().Release();
}

TEST(ServerTest, StreamsThatOutlastTheDrainTimeoutAreEnded) {
  FakeModelServer::Options options;
  options.config.drain_timeout = std::chrono::seconds(0);
  FakeModelServer server(std::move(options));
  server.control().SetStepTime(milliseconds(1));
  BusyStream busy(server);

  server.server().Shutdown();

  EXPECT_EQ(ReadAll(*busy.reader).status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(server.control().live_sequences(), 0);
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

// A lost device fails every request of its model, and no other process would serve them.
TEST(ServerTest, ALostDeviceEndsTheService) {
  std::atomic<int> num_failures = 0;
  FakeModelServer server({.on_failure = [&] { ++num_failures; }});
  server.control().FailIf(
      [](std::span<const TokenId>) { return absl::UnavailableError("the device is lost: boom"); });

  const grpc::Status status = GenerateOne(server);

  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(status.error_message(), "the device is lost: boom");
  EXPECT_EQ(num_failures, 1);
  EXPECT_TRUE(server.server().has_failed());
  EXPECT_THAT(server.Get("/readyz"), StartsWith("503"));
  EXPECT_EQ(GenerateOne(server).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(num_failures, 1);
}

}  // namespace
}  // namespace evaserve
