// How requests and the server end: cancel, deadline, overload, shutdown, health and metrics.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "absl/time/clock.h"
#include "tests/e2e/test_server.h"

namespace evaserve {
namespace {

using testing::HasSubstr;

// One sequence runs and one waits.
Config OneAtATime() {
  Config config;
  config.max_running = 1;
  config.max_waiting = 1;
  return config;
}

TEST(LifeTest, CancelFreesTheSequence) {
  TestServer& server = SharedServer();
  GenerateStream stream = server.client().Generate(EndlessRequest());
  ASSERT_TRUE(stream.Next().has_value());

  stream.Cancel();

  EXPECT_TRUE(absl::IsCancelled(stream.Finish()));
  server.WaitUntilIdle();
}

TEST(LifeTest, DeadlineFreesTheSequence) {
  TestServer& server = SharedServer();
  GenerateStream stream = server.client().Generate(
      EndlessRequest(), {.deadline = absl::Now() + absl::Milliseconds(100)});
  while (stream.Next()) {
  }

  EXPECT_TRUE(absl::IsDeadlineExceeded(stream.Finish()));
  server.WaitUntilIdle();
}

TEST(LifeTest, ADeadlinePassesInTheQueueToo) {
  TestServer server(OneAtATime());
  GenerateStream running = server.client().Generate(EndlessRequest());
  ASSERT_TRUE(running.Next().has_value());

  GenerateStream waiting = server.client().Generate(
      EndlessRequest(), {.deadline = absl::Now() + absl::Milliseconds(100)});

  EXPECT_FALSE(waiting.Next().has_value());
  EXPECT_TRUE(absl::IsDeadlineExceeded(waiting.Finish()));
  server.WaitForMetric("evaserve_waiting_requests", 0);
}

TEST(LifeTest, RefusesWhatWouldWaitBehindAFullQueue) {
  TestServer server(OneAtATime());
  GenerateStream running = server.client().Generate(EndlessRequest());
  ASSERT_TRUE(running.Next().has_value());
  GenerateStream waiting = server.client().Generate(EndlessRequest());
  server.WaitForMetric("evaserve_waiting_requests", 1);

  GenerateStream refused = server.client().Generate(EndlessRequest());

  EXPECT_FALSE(refused.Next().has_value());
  EXPECT_TRUE(absl::IsResourceExhausted(refused.Finish()));
  EXPECT_TRUE(running.Next().has_value());
}

TEST(LifeTest, ASlowReaderDoesNotHoldUpTheOthers) {
  TestServer& server = SharedServer();
  GenerateStream never_read = server.client().Generate(EndlessRequest());
  ASSERT_TRUE(never_read.Next().has_value());

  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(GenerateAll(server.client(), GreedyRequest("abc", 500)).empty(), false);
  }
}

TEST(LifeTest, IsHealthyAndReady) {
  TestServer& server = SharedServer();

  EXPECT_EQ(server.client().IsServing().value(), true);
  EXPECT_EQ(server.client().IsServing("tiny").value(), true);
  EXPECT_THAT(server.HttpGet("/healthz"), HasSubstr("200 OK"));
  EXPECT_THAT(server.HttpGet("/readyz"), HasSubstr("200 OK"));
}

TEST(LifeTest, ShowsWhatItDidAsMetrics) {
  TestServer server;
  const std::string text = GenerateAll(server.client(), GreedyRequest("abc", 30));
  GenerateStream refused = server.client().Generate(GreedyRequest("", 30));
  while (refused.Next()) {
  }
  server.WaitUntilIdle();

  const std::string page = server.HttpGet("/metrics");
  EXPECT_THAT(page, HasSubstr("# TYPE evaserve_requests_total counter"));
  EXPECT_THAT(page, testing::ContainsRegex(
                        "evaserve_requests_total\\{[^}]*code=\"INVALID_ARGUMENT\"[^}]*\\} 1\n"));
  EXPECT_EQ(server.Metric("evaserve_requests_total"), 2);
  EXPECT_EQ(server.Metric("evaserve_input_bytes_total"), 3);
  EXPECT_EQ(server.Metric("evaserve_output_bytes_total"), text.size());
  EXPECT_EQ(server.Metric("evaserve_time_to_first_byte_seconds_count"), 1);
  EXPECT_EQ(server.Metric("evaserve_time_between_bytes_seconds_count"), 29);
  EXPECT_EQ(server.Metric("evaserve_request_duration_seconds_count"), 2);
  EXPECT_GT(server.Metric("evaserve_step_tokens_count"), 0);
  EXPECT_GT(server.Metric("evaserve_state_pages_total"), 0);
}

}  // namespace
}  // namespace evaserve
