#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <span>
#include <string>
#include <thread>

#include "absl/synchronization/notification.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "server/rpc/infer_test_util.h"
#include "server/testing/fake_model_server.h"
#include "server/testing/server_calls.h"

namespace evaserve {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// Load balancers hear of the end before requests are refused.
TEST(ServerEndTest, TakesRequestsInThePauseBeforeItDrains) {
  FakeModelServer server({.config = {.drain_pause = milliseconds(1500)}});
  std::thread shutdown([&] { server.server().Shutdown(); });

  EXPECT_THAT(server.GetOnce("/readyz", "503"), HasSubstr("shutting down"));
  EXPECT_TRUE(GenerateOne(server).ok());
  shutdown.join();
}

TEST(ServerEndTest, ItsEndDoesNotWaitForALoadAndNothingMoreIsLoaded) {
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

TEST(ServerEndTest, ItsEndDoesNotWaitForALoadThatAClientAskedFor) {
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

TEST(ServerEndTest, StreamsFinishWhenItShutsDown) {
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
TEST(ServerEndTest, ClientsAreSentElsewhereWhileAnswersGoOn) {
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

TEST(ServerEndTest, OpenStreamsWithoutARequestDoNotHoldUpItsEnd) {
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
TEST(ServerEndTest, AnOpenStreamGetsUnavailableForWhatComesLateAndNoHintToTryAgain) {
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

TEST(ServerEndTest, AStepThatDoesNotEndDoesNotHoldUpItsEnd) {
  FakeModelServer server({.config = {.drain_timeout = std::chrono::seconds(0)}});
  server.control().Hold();
  std::thread client([&] { EXPECT_FALSE(GenerateOne(server).ok()); });
  server.control().WaitUntilHeld();

  EXPECT_FALSE(server.server().Shutdown(/*patience=*/milliseconds(50)));

  client.join();  // it has been told
  server.control().Release();
}

TEST(ServerEndTest, StreamsThatOutlastTheDrainTimeoutAreEnded) {
  FakeModelServer::Options options;
  options.config.drain_timeout = std::chrono::seconds(0);
  FakeModelServer server(std::move(options));
  server.control().SetStepTime(milliseconds(1));
  BusyStream busy(server);

  server.server().Shutdown();

  EXPECT_EQ(ReadAll(*busy.reader).status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(server.control().live_sequences(), 0);
}

// A lost device fails every request of its model, and no other process would serve them.
TEST(ServerEndTest, ALostDeviceEndsTheService) {
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
