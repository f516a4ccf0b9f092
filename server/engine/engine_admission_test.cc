#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/engine/engine.h"
#include "tests/fakes/fake_engine.h"

namespace evaserve {
namespace {

using ::testing::HasSubstr;

class EngineAdmissionTest : public ::testing::Test {
 protected:
  // Fills the only place of `fake` with a client that reads nothing.
  void FillTheOnlyPlace(FakeEngine& fake) {
    blocker_->SetSlow(true);
    ASSERT_TRUE(fake.engine->Submit(GenerateRequest("blocker", 20, blocker_)).ok());
    blocker_->WaitForTokens(1);
  }

  std::shared_ptr<RecordingSink> blocker_ = std::make_shared<RecordingSink>();
  std::shared_ptr<RecordingSink> sink_ = std::make_shared<RecordingSink>();
};

TEST_F(EngineAdmissionTest, RefusesWhenTooManyWait) {
  FakeEngine fake({.max_running = 1, .waiting = {.max_waiting = 2}});
  FillTheOnlyPlace(fake);
  auto waiting = std::make_shared<RecordingSink>();
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("a", 1, waiting)).ok());
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("b", 1, waiting)).ok());

  const absl::Status status = fake.engine->Submit(GenerateRequest("c", 1, sink_)).status();

  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("the limit is 2"));
  EXPECT_EQ(sink_->num_done(), 0) << "the sink of a refused request is not called";
}

TEST_F(EngineAdmissionTest, RefusesWhenTooManyTokensWait) {
  FakeEngine fake({.max_running = 1, .waiting = {.max_waiting_tokens = 10}});
  FillTheOnlyPlace(fake);
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest(Letters(20), 1, sink_)).ok())
      << "a long one is welcome when nobody waits";

  const absl::Status status = fake.engine->Submit(GenerateRequest("c", 1, sink_)).status();

  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
}

// What comes during a step, of which the engine's thread has not heard.
TEST_F(EngineAdmissionTest, ABurstFillsTheFreePlacesBeforeItWaits) {
  FakeEngine fake({.max_running = 8, .waiting = {.max_waiting = 2}});
  fake.control->Hold();
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  const auto submit = [&] {
    auto sink = std::make_shared<RecordingSink>();
    const absl::Status status = fake.engine->Submit(GenerateRequest("a", 1, sink)).status();
    if (status.ok()) sinks.push_back(std::move(sink));
    return status;
  };
  ASSERT_TRUE(submit().ok());
  fake.control->WaitUntilHeld();

  for (int i = 0; i < 7 + 2; ++i) EXPECT_TRUE(submit().ok()) << "request " << i;
  const absl::Status status = submit();

  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_EQ(fake.engine->state().waiting, 9) << "they do wait, for the step to end";
  fake.control->Release();
  for (const auto& sink : sinks) EXPECT_TRUE(sink->WaitUntilDone().status.ok());
}

TEST_F(EngineAdmissionTest, RefusesWhatCanNeverFit) {
  FakeEngine fake({}, FakeModel::Options{.total_pages = 10, .max_seq_len = 400});

  const absl::Status too_long =
      fake.engine->Submit(GenerateRequest(Letters(500), 1, sink_)).status();
  const absl::Status no_pages =
      fake.engine->Submit(GenerateRequest(Letters(300), 1, sink_)).status();

  EXPECT_TRUE(absl::IsInvalidArgument(too_long)) << too_long;
  EXPECT_THAT(std::string(too_long.message()), HasSubstr("max_seq_len"));
  EXPECT_TRUE(absl::IsInvalidArgument(no_pages)) << no_pages;
  EXPECT_THAT(std::string(no_pages.message()), HasSubstr("state pool"));
}

TEST_F(EngineAdmissionTest, RefusesAPassedDeadline) {
  FakeEngine fake;
  Request request = GenerateRequest("a", 1, sink_);
  request.deadline = Clock::now();

  EXPECT_TRUE(absl::IsDeadlineExceeded(fake.engine->Submit(std::move(request)).status()));
}

TEST_F(EngineAdmissionTest, ADrainingEngineRefusesNewRequestsAndFinishesWhatItHas) {
  FakeEngine fake({.max_running = 1});
  fake.control->Hold();
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("runs", 5, blocker_)).ok());
  fake.control->WaitUntilHeld();
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("waits", 5, sink_)).ok());

  fake.engine->Drain();
  auto late = std::make_shared<RecordingSink>();
  EXPECT_TRUE(absl::IsUnavailable(fake.engine->Submit(GenerateRequest("a", 1, late)).status()));
  EXPECT_FALSE(fake.engine->WaitUntilIdle(Clock::now()));
  fake.control->Release();

  EXPECT_TRUE(fake.engine->WaitUntilIdle(TimePoint::max()));
  EXPECT_TRUE(blocker_->WaitUntilDone().status.ok());
  EXPECT_TRUE(sink_->WaitUntilDone().status.ok());
}

}  // namespace
}  // namespace evaserve
