// How requests end before their time: cancelled, too late, or with the engine itself.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "server/engine/engine.h"
#include "tests/fakes/fake_engine.h"

namespace evaserve {
namespace {

using ::testing::HasSubstr;

TEST(EngineLimitsTest, WaitingTooLongForAPlaceIsOverloadForTritonsClients) {
  FakeEngine fake({.max_running = 1,
                   .waiting = {.overload_status = OverloadStatus::kUnavailable},
                   .max_queue_time = std::chrono::milliseconds(300)});  // the first one is in time
  auto running = std::make_shared<RecordingSink>(), waiting = std::make_shared<RecordingSink>();
  running->SetSlow(true);  // so that it rests in its place
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("a", 100, running)).ok());
  running->WaitForTokens(1);

  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("b", 2, waiting)).ok());

  const absl::Status status = waiting->WaitUntilDone().status;
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_TRUE(IsOverload(status));
}

TEST(EngineLimitsTest, ARequestThatWaitsTooLongForAPlaceEnds) {
  FakeEngine fake({.max_running = 1, .max_queue_time = std::chrono::milliseconds(200)});
  fake.control->Hold();
  auto running = std::make_shared<RecordingSink>(), waiting = std::make_shared<RecordingSink>();
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("a", 2, running)).ok());
  fake.control->WaitUntilHeld();
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("b", 2, waiting)).ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(210));
  fake.control->AllowSteps(1);

  const absl::Status status = waiting->WaitUntilDone().status;

  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("200 ms (max_queue_time)"));
  fake.control->Release();
  EXPECT_TRUE(running->WaitUntilDone().status.ok()) << "one that runs is not concerned";
}

TEST(EngineLimitsTest, ARequestEndsAfterMaxRequestTime) {
  FakeEngine fake({.max_request_time = std::chrono::milliseconds(20)});
  fake.control->Hold();
  auto sink = std::make_shared<RecordingSink>();
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("a", 1000, sink)).ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  fake.control->Release();

  EXPECT_TRUE(absl::IsDeadlineExceeded(sink->WaitUntilDone().status));
}

TEST(EngineLimitsTest, TheConfiguredLengthsAreLimits) {
  FakeEngine fake({.max_prompt_tokens = 4, .max_new_tokens = 3});
  auto sink = std::make_shared<RecordingSink>();
  const auto message = [&](const Request& request) {
    return std::string(fake.engine->Submit(request).status().message());
  };

  EXPECT_THAT(message(GenerateRequest("abcdef", 1, sink)), HasSubstr("limit is 4"));
  EXPECT_THAT(message(TextRequest(Task::kScore, "abcdef", sink)), HasSubstr("limit is 4"));
  EXPECT_THAT(message(GenerateRequest("ab", 4, sink)),
              HasSubstr("max_new_tokens is 4, the limit is 3"));
  Request request = GenerateRequest("ab", 1, sink);
  request.priority = 16;
  EXPECT_THAT(message(request), HasSubstr("priority is 16, allowed is 1 to 15"));
}

TEST(EngineLimitsTest, TellsHowLongAStepHasTaken) {
  FakeEngine fake;
  EXPECT_EQ(fake.engine->step_age(), std::nullopt);
  fake.control->Hold();
  auto sink = std::make_shared<RecordingSink>();
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("a", 1, sink)).ok());
  fake.control->WaitUntilHeld();
  EXPECT_GE(fake.engine->step_age(), std::chrono::milliseconds(0));
  fake.control->Release();
  sink->WaitUntilDone();
  EXPECT_EQ(fake.engine->step_age(), std::nullopt);
}

TEST(EngineLimitsTest, TellsHowLongASecondTryHasTaken) {
  FakeEngine fake;
  int calls = 0;
  fake.control->FailIf([&calls](std::span<const TokenId>) {
    return ++calls == 2 ? absl::InternalError("once") : absl::OkStatus();
  });
  fake.control->Hold();
  auto first = std::make_shared<RecordingSink>(), second = std::make_shared<RecordingSink>();
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("a", 2, first)).ok());
  fake.control->WaitUntilHeld();
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("b", 1, second)).ok());
  fake.control->AllowSteps(2);  // that of the first prompt, and that of both, which fails
  fake.control->WaitForSteps(2);
  fake.control->WaitUntilHeld();

  EXPECT_GE(fake.engine->step_age(), std::chrono::milliseconds(0));
  fake.control->Release();
  EXPECT_TRUE(first->WaitUntilDone().status.ok());
  EXPECT_TRUE(second->WaitUntilDone().status.ok());
}

using std::chrono::milliseconds;

enum class Phase { kWaiting, kPrefill, kDecoding, kPaused };

// A request in one of its phases, in an engine that would keep it there for a second and more.
class EngineEndTest : public ::testing::TestWithParam<Phase> {
 protected:
  EngineEndTest() { fake_.control->SetStepTime(milliseconds(1)); }

  void BringToPhase(TimePoint deadline = TimePoint::max()) {
    if (GetParam() == Phase::kWaiting) FillTheOnlyPlace();
    sink_->SetSlow(GetParam() == Phase::kPaused);
    const size_t prompt_bytes = GetParam() == Phase::kPrefill ? 20000 : 3;
    Request request = GenerateRequest(std::string(prompt_bytes, 'a'), 2000, sink_);
    request.deadline = deadline;
    auto handle = fake_.engine->Submit(std::move(request));
    ASSERT_TRUE(handle.ok()) << handle.status();
    handle_ = *handle;
  }

  void WaitForPhase() {
    if (GetParam() == Phase::kPrefill) fake_.control->WaitForSteps(2);
    if (GetParam() == Phase::kDecoding) sink_->WaitForTokens(2);
    if (GetParam() == Phase::kPaused) sink_->WaitForTokens(1);
  }

  void FillTheOnlyPlace() {
    blocker_sink_->SetSlow(true);
    auto blocker = fake_.engine->Submit(GenerateRequest("blocker", 20, blocker_sink_));
    ASSERT_TRUE(blocker.ok());
    blocker_ = *blocker;
    blocker_sink_->WaitForTokens(1);
  }

  void ExpectNothingIsLeft() {
    if (blocker_ != nullptr) blocker_->Cancel();
    ASSERT_TRUE(fake_.engine->WaitUntilIdle(TimePoint::max()));
    EXPECT_EQ(sink_->num_done(), 1);
    EXPECT_EQ(fake_.control->live_sequences(), 0);
    EXPECT_EQ(fake_.engine->state().running, 0);
    EXPECT_EQ(fake_.engine->state().waiting, 0);
    EXPECT_EQ(fake_.engine->state().waiting_tokens, 0);
    EXPECT_EQ(fake_.engine->state().pages_used, 0);
  }

  std::shared_ptr<RecordingSink> blocker_sink_ = std::make_shared<RecordingSink>();
  std::shared_ptr<RecordingSink> sink_ = std::make_shared<RecordingSink>();
  FakeEngine fake_{EngineOptions{.max_running = 1}, FakeModel::Options{.max_seq_len = 100000}};
  std::shared_ptr<RequestHandle> blocker_;
  std::shared_ptr<RequestHandle> handle_;
};

TEST_P(EngineEndTest, CancelEndsItAndLeavesNothing) {
  BringToPhase();
  WaitForPhase();

  handle_->Cancel();

  EXPECT_TRUE(absl::IsCancelled(sink_->WaitUntilDone().status));
  ExpectNothingIsLeft();
}

TEST_P(EngineEndTest, APassedDeadlineEndsItAndLeavesNothing) {
  BringToPhase(Clock::now() + milliseconds(40));

  EXPECT_TRUE(absl::IsDeadlineExceeded(sink_->WaitUntilDone().status));
  ExpectNothingIsLeft();
}

TEST_P(EngineEndTest, TheEndOfTheEngineEndsIt) {
  BringToPhase();
  WaitForPhase();

  fake_.engine.reset();

  EXPECT_TRUE(absl::IsUnavailable(sink_->WaitUntilDone().status));
  EXPECT_EQ(sink_->num_done(), 1);
  EXPECT_EQ(fake_.control->live_sequences(), 0);
  handle_->Cancel();
  handle_->Resume();
}

INSTANTIATE_TEST_SUITE_P(Phases, EngineEndTest,
                         ::testing::Values(Phase::kWaiting, Phase::kPrefill, Phase::kDecoding,
                                           Phase::kPaused));

TEST(EngineCancelTest, TakesEffectBeforeTheNextStep) {
  FakeEngine fake;
  auto sink = std::make_shared<RecordingSink>();
  fake.control->Hold();
  auto handle = fake.engine->Submit(GenerateRequest("abc", 100, sink));
  ASSERT_TRUE(handle.ok());
  fake.control->WaitUntilHeld();

  (*handle)->Cancel();
  fake.control->AllowSteps(1);

  EXPECT_TRUE(absl::IsCancelled(sink->WaitUntilDone().status));
  EXPECT_EQ(sink->tokens().size(), 1u) << "of the step that was going on";
  EXPECT_EQ(fake.control->steps().size(), 1u);
}

TEST(EngineCancelTest, DoesNothingAfterTheEnd) {
  FakeEngine fake;
  auto sink = std::make_shared<RecordingSink>();
  auto other = std::make_shared<RecordingSink>();
  auto handle = fake.engine->Submit(GenerateRequest("abc", 1, sink));
  ASSERT_TRUE(handle.ok());
  sink->WaitUntilDone();

  (*handle)->Cancel();
  (*handle)->Cancel();
  (*handle)->Resume();
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("abc", 1, other)).ok());

  EXPECT_TRUE(other->WaitUntilDone().status.ok());
  EXPECT_EQ(sink->num_done(), 1);
}

TEST(EngineCancelTest, FreesThePlaceForTheNextInLine) {
  FakeEngine fake({.max_running = 1});
  auto running = std::make_shared<RecordingSink>();
  auto waiting = std::make_shared<RecordingSink>();
  running->SetSlow(true);
  auto handle = fake.engine->Submit(GenerateRequest("abc", 100, running));
  ASSERT_TRUE(handle.ok());
  running->WaitForTokens(1);
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("def", 2, waiting)).ok());

  (*handle)->Cancel();

  EXPECT_TRUE(waiting->WaitUntilDone().status.ok());
}

// A sink that cancels its own request from inside a call of the engine.
class ImpatientSink final : public ResponseSink {
 public:
  bool OnTokens(std::string_view, std::span<const GeneratedToken>) override {
    handle.WaitForNotification();
    request->Cancel();
    return true;
  }
  void OnDone(Completion completion) override {
    status = completion.status;
    done.Notify();
  }

  absl::Notification handle;
  std::shared_ptr<RequestHandle> request;
  absl::Status status;
  absl::Notification done;
};

TEST(EngineCancelTest, ASinkMayCancelItsOwnRequest) {
  FakeEngine fake;
  auto sink = std::make_shared<ImpatientSink>();
  auto handle = fake.engine->Submit(GenerateRequest("abc", 1000, sink));
  ASSERT_TRUE(handle.ok());
  sink->request = *handle;
  sink->handle.Notify();

  sink->done.WaitForNotification();

  EXPECT_TRUE(absl::IsCancelled(sink->status));
}

// A sink that looks, at the end, whether its state is still there.
class LateSink final : public ResponseSink {
 public:
  explicit LateSink(FakeModelControl& control) : control_(control) {}

  bool OnTokens(std::string_view, std::span<const GeneratedToken>) override { return true; }
  void OnDone(Completion) override {
    live_sequences = control_.live_sequences();
    done.Notify();
  }

  int live_sequences = -1;
  absl::Notification done;

 private:
  FakeModelControl& control_;
};

TEST(EngineEndOrderTest, TheStateIsFreeWhenTheSinkHearsOfTheEnd) {
  FakeEngine fake;
  auto sink = std::make_shared<LateSink>(*fake.control);

  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("abc", 2, sink)).ok());
  sink->done.WaitForNotification();

  EXPECT_EQ(sink->live_sequences, 0);
}

TEST(EngineCancelTest, AStormOfCancelledRequestsLeavesNothing) {
  FakeEngine fake({.max_running = 20, .waiting = {.max_waiting = 2000}},
                  FakeModel::Options{.total_pages = 100});
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 2000; ++i) sinks.push_back(std::make_shared<RecordingSink>());

  std::vector<std::thread> clients;
  for (int client = 0; client < 4; ++client) {
    clients.emplace_back([&, client] {
      for (int i = client; i < 2000; i += 4) {
        auto handle = fake.engine->Submit(GenerateRequest(std::string(i % 50, 'a'), 100, sinks[i]));
        ASSERT_TRUE(handle.ok()) << handle.status();
        if (i % 3 == 0) sinks[i]->WaitForTokens(i % 5);
        (*handle)->Cancel();
      }
    });
  }
  for (std::thread& client : clients) client.join();
  ASSERT_TRUE(fake.engine->WaitUntilIdle(TimePoint::max()));

  for (const auto& sink : sinks) ASSERT_EQ(sink->num_done(), 1);
  EXPECT_EQ(fake.control->live_sequences(), 0);
  EXPECT_EQ(fake.engine->state().pages_used, 0);
  EXPECT_EQ(fake.engine->state().running, 0);
  EXPECT_EQ(fake.engine->state().waiting, 0);
}

}  // namespace
}  // namespace evaserve
