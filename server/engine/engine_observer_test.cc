#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "server/engine/engine.h"
#include "tests/fakes/fake_engine.h"

namespace evaserve {
namespace {

using ::testing::SizeIs;

TEST(EngineObserverTest, TellsWhatHappens) {
  FakeEngine fake;
  auto sink = std::make_shared<RecordingSink>();

  ASSERT_TRUE(fake.engine->Submit(GenerateRequest(Letters(19), 5, sink)).ok());
  const Completion completion = sink->WaitUntilDone();
  ASSERT_TRUE(fake.engine->WaitUntilIdle(TimePoint::max()));

  const RecordingObserver::Records records = fake.observer.records();
  int prefill_tokens = 0;
  int decode_tokens = 0;
  for (const StepStats& step : records.steps) {
    prefill_tokens += step.prefill_tokens;
    decode_tokens += step.decode_tokens;
  }
  EXPECT_EQ(prefill_tokens, 20);
  EXPECT_EQ(decode_tokens, 4) << "the first token comes with the prompt";
  EXPECT_EQ(records.num_first_steps, 1);
  EXPECT_EQ(records.num_first_tokens, 1);
  EXPECT_EQ(records.num_next_tokens, 4);
  EXPECT_THAT(records.completions, SizeIs(1));
  EXPECT_LE(completion.timings.queue, completion.timings.first_token);
  EXPECT_LE(completion.timings.first_token, completion.timings.total);
}

TEST(EngineObserverTest, TellsTheStateWheneverItChanges) {
  FakeEngine fake({.max_running = 1});
  auto first = std::make_shared<RecordingSink>();
  auto second = std::make_shared<RecordingSink>();
  fake.control->Hold();
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("ab", 2, first)).ok());
  fake.control->WaitUntilHeld();
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("cd", 2, second)).ok());

  EngineState state = fake.engine->state();
  EXPECT_EQ(state.running, 1);
  EXPECT_EQ(state.waiting, 1);
  EXPECT_EQ(state.waiting_tokens, 3);
  EXPECT_EQ(state.pages_total, 10000);

  fake.control->Release();
  ASSERT_TRUE(fake.engine->WaitUntilIdle(TimePoint::max()));
  const std::vector<EngineState> states = fake.observer.records().states;
  EXPECT_EQ(states.front().running, 0) << "at the start";
  EXPECT_EQ(states.back(), fake.engine->state());
}

TEST(EngineObserverTest, TellsWhichPagesArePromised) {
  FakeEngine fake;
  auto sink = std::make_shared<RecordingSink>();
  fake.control->Hold();
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("ab", 1000, sink)).ok());
  fake.control->WaitUntilHeld();

  const EngineState state = fake.engine->state();

  EXPECT_EQ(state.pages_promised, FakeModel().PagesFor(3 + 1000 - 1));
  EXPECT_EQ(state.pages_used, 0) << "before its first step";
  fake.control->Release();
  ASSERT_TRUE(fake.engine->WaitUntilIdle(TimePoint::max()));
  EXPECT_EQ(fake.engine->state().pages_promised, 0);
}

TEST(EngineObserverTest, DoesNotTellTheSameStateTwice) {
  FakeEngine fake;
  auto running = std::make_shared<RecordingSink>();
  auto cancelled = std::make_shared<RecordingSink>();
  fake.control->Hold();
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("ab", 3, running)).ok());
  fake.control->AllowSteps(1);
  running->WaitForTokens(1);
  fake.control->WaitUntilHeld();
  auto handle = fake.engine->Submit(GenerateRequest("cd", 2, cancelled));
  ASSERT_TRUE(handle.ok());
  (*handle)->Cancel();  // comes and goes between two steps
  fake.control->Release();
  ASSERT_TRUE(fake.engine->WaitUntilIdle(TimePoint::max()));

  const std::vector<EngineState> states = fake.observer.records().states;
  for (size_t i = 1; i < states.size(); ++i) EXPECT_NE(states[i - 1], states[i]) << i;
}

}  // namespace
}  // namespace evaserve
