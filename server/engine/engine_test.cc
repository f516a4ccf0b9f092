#include "server/engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/fakes/fake_engine.h"

namespace evaserve {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using Piece = FakeModelControl::Piece;

FakeModel::Options ModelThatSays(const std::string& text, const std::string& prompt) {
  return {.next_token = Saying(text, prompt.size() + 1)};
}

std::string Letters(int count) {
  std::string letters;
  for (int i = 0; i < count; ++i) letters += static_cast<char>('a' + i * 7 % 26);
  return letters;
}

TEST(EngineTest, GeneratesUntilTheModelEndsItsText) {
  FakeEngine fake({}, ModelThatSays("Hello!", "Hi"));
  auto sink = std::make_shared<RecordingSink>();

  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("Hi", 100, sink)).ok());

  const Completion completion = sink->WaitUntilDone();
  EXPECT_TRUE(completion.status.ok()) << completion.status;
  EXPECT_EQ(sink->text(), "Hello!");
  EXPECT_EQ(completion.finish_reason, FinishReason::kEos);
  EXPECT_EQ(completion.usage.prompt_tokens, 3);
  EXPECT_EQ(completion.usage.new_tokens, 7);
  EXPECT_EQ(completion.usage.new_bytes, 6);
}

TEST(EngineTest, ReportsEachTokenWithItsLogprob) {
  FakeEngine fake({}, ModelThatSays("ab", "Hi"));
  auto sink = std::make_shared<RecordingSink>();

  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("Hi", 100, sink)).ok());
  sink->WaitUntilDone();

  const std::vector<GeneratedToken> tokens = sink->tokens();
  ASSERT_EQ(tokens.size(), 3u);
  EXPECT_EQ(tokens[0].bytes, "a");
  EXPECT_NEAR(tokens[0].sample.chosen.logprob, FakeModel::LikelyLogprob(), 1e-5);
  EXPECT_EQ(tokens[2].bytes, "") << "a special token has no bytes";
}

TEST(EngineTest, StopsAtAStopString) {
  FakeEngine fake({}, ModelThatSays("one\n\ntwo", "Hi"));
  auto sink = std::make_shared<RecordingSink>();
  Request request = GenerateRequest("Hi", 100, sink);
  request.generate.stop = {"\n\n"};

  ASSERT_TRUE(fake.engine->Submit(std::move(request)).ok());

  const Completion completion = sink->WaitUntilDone();
  EXPECT_EQ(sink->text(), "one");
  EXPECT_EQ(completion.finish_reason, FinishReason::kStop);
  EXPECT_EQ(completion.stop, "\n\n");
}

TEST(EngineTest, StopsAtMaxNewTokens) {
  FakeEngine fake;
  auto sink = std::make_shared<RecordingSink>();

  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("Hi", 5, sink)).ok());

  EXPECT_EQ(sink->WaitUntilDone().finish_reason, FinishReason::kLength);
  EXPECT_THAT(sink->text(), SizeIs(5));
}

TEST(EngineTest, StopsWhereTheModelsLengthEnds) {
  FakeEngine fake({}, FakeModel::Options{.max_seq_len = 40});
  auto sink = std::make_shared<RecordingSink>();

  ASSERT_TRUE(fake.engine->Submit(GenerateRequest(Letters(29), 1000000, sink)).ok());

  const Completion completion = sink->WaitUntilDone();
  EXPECT_TRUE(completion.status.ok()) << completion.status;
  EXPECT_EQ(completion.finish_reason, FinishReason::kLength);
  EXPECT_THAT(sink->text(), SizeIs(10)) << "30 tokens of prompt, bos included";
}

TEST(EngineTest, ReportsTheSeed) {
  FakeEngine fake;
  auto sink = std::make_shared<RecordingSink>();
  Request request = GenerateRequest("Hi", 2, sink);
  request.generate.sampling.seed = 77;

  ASSERT_TRUE(fake.engine->Submit(std::move(request)).ok());

  EXPECT_EQ(sink->WaitUntilDone().seed, 77u);
}

TEST(EngineTest, TheRepetitionPenaltyCountsThePrompt) {
  FakeEngine fake({}, ModelThatSays("aaaa", "xax"));
  auto sink = std::make_shared<RecordingSink>();
  Request request = GenerateRequest("xax", 1, sink);
  request.generate.sampling.repetition_penalty = 1000;

  ASSERT_TRUE(fake.engine->Submit(std::move(request)).ok());
  sink->WaitUntilDone();

  EXPECT_NE(sink->text(), "a");
}

// The prompt says itself: each letter follows from its position.
TEST(EngineTest, ScoresEveryTokenButTheFirstAcrossWindows) {
  const std::string text = Letters(50);
  FakeEngine fake({}, FakeModel::Options{.next_token = Saying(text, 1)});
  auto sink = std::make_shared<RecordingSink>();
  std::string changed = text;
  changed[0] = '#';
  changed[20] = '#';
  changed[49] = '#';

  ASSERT_TRUE(fake.engine->Submit(TextRequest(Task::kScore, changed, sink)).ok());

  const Completion completion = sink->WaitUntilDone();
  std::vector<float> expected(50, FakeModel::LikelyLogprob());
  for (int i : {0, 20, 49}) expected[i] = FakeModel::UnlikelyLogprob();
  EXPECT_TRUE(completion.status.ok()) << completion.status;
  EXPECT_EQ(completion.logprobs, expected);
  EXPECT_EQ(completion.usage.prompt_tokens, 51);
  EXPECT_EQ(completion.finish_reason, FinishReason::kNone);
}

TEST(EngineTest, EmbedsAsTheMeanOverAllTokensAcrossWindows) {
  FakeEngine fake;
  auto sink = std::make_shared<RecordingSink>();
  Request request = TextRequest(Task::kEmbed, std::string(39, 'a'), sink);
  request.normalize = false;

  ASSERT_TRUE(fake.engine->Submit(std::move(request)).ok());

  const float mean_token = (1 + 39 * (FakeTokenizer::kFirstByte + 'a')) / 40.f;
  const float mean_position = 39 / 2.f;
  EXPECT_THAT(sink->WaitUntilDone().embedding, ElementsAre(mean_token, mean_position, 1.f));
}

TEST(EngineTest, NormalizesAnEmbedding) {
  FakeEngine fake;
  auto sink = std::make_shared<RecordingSink>();

  ASSERT_TRUE(fake.engine->Submit(TextRequest(Task::kEmbed, Letters(39), sink)).ok());

  double square = 0;
  for (float value : sink->WaitUntilDone().embedding) square += double{value} * value;
  EXPECT_NEAR(square, 1.0, 1e-6);
}

TEST(EngineTest, CutsPromptsAtWindowsAndRunsThemBesideGenerations) {
  FakeEngine fake;
  auto first = std::make_shared<RecordingSink>();
  auto second = std::make_shared<RecordingSink>();
  fake.control->Hold();
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("abc", 4, first)).ok());
  fake.control->WaitUntilHeld();
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest(Letters(19), 2, second)).ok());
  fake.control->Release();

  first->WaitUntilDone();
  second->WaitUntilDone();

  EXPECT_THAT(fake.control->steps(),
              ElementsAre(ElementsAre(Piece{0, 4}),                // the first's prompt
                          ElementsAre(Piece{4, 1}, Piece{0, 16}),  // the second's window
                          ElementsAre(Piece{5, 1}, Piece{16, 4}),  // and its rest
                          ElementsAre(Piece{6, 1}, Piece{20, 1})));
}

// Requests of all tasks and many lengths, more than run at once and than the pages hold.
TEST(EngineTest, AConcurrentRequestGivesTheSameAsOneAlone) {
  const EngineOptions options{.max_batch_tokens = 40, .max_running = 13};
  const FakeModel::Options model{.total_pages = 60};
  std::vector<Request> requests;
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 64; ++i) {
    sinks.push_back(std::make_shared<RecordingSink>());
    const std::string text = Letters(1 + i * 5 % 90);
    requests.push_back(GenerateRequest(text, 1 + i * 11 % 60, sinks.back()));
    if (i % 7 == 5) requests.back() = TextRequest(Task::kScore, text, sinks.back());
    if (i % 7 == 6) requests.back() = TextRequest(Task::kEmbed, text, sinks.back());
  }
  FakeEngine fake(options, model);
  for (const Request& request : requests) ASSERT_TRUE(fake.engine->Submit(request).ok());
  for (const auto& sink : sinks) sink->WaitUntilDone();

  FakeEngine alone;
  for (int i = 0; i < 64; ++i) {
    auto sink = std::make_shared<RecordingSink>();
    requests[i].sink = sink;
    ASSERT_TRUE(alone.engine->Submit(requests[i]).ok());
    const Completion expected = sink->WaitUntilDone();
    const Completion got = sinks[i]->WaitUntilDone();

    EXPECT_TRUE(got.status.ok()) << got.status;
    EXPECT_EQ(sinks[i]->text(), sink->text()) << i;
    EXPECT_EQ(got.logprobs, expected.logprobs) << i;
    EXPECT_EQ(got.embedding, expected.embedding) << i;
    EXPECT_EQ(got.finish_reason, expected.finish_reason) << i;
  }
}

TEST(EngineTest, ASlowReaderPausesOnlyItself) {
  FakeEngine fake;
  auto slow = std::make_shared<RecordingSink>();
  auto quick = std::make_shared<RecordingSink>();
  slow->SetSlow(true);
  auto handle = fake.engine->Submit(GenerateRequest("slow", 20, slow));
  ASSERT_TRUE(handle.ok());
  slow->WaitForTokens(1);

  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("quick", 50, quick)).ok());
  quick->WaitUntilDone();
  EXPECT_THAT(slow->tokens(), SizeIs(1));

  (*handle)->Resume();
  slow->WaitForTokens(2);
  slow->SetSlow(false);
  (*handle)->Resume();
  EXPECT_TRUE(slow->WaitUntilDone().status.ok());
  EXPECT_THAT(slow->text(), SizeIs(20));
}

TEST(EngineTest, OnlyTheSequenceThatMakesAStepFailEnds) {
  FakeEngine fake;
  fake.control->FailIf([](std::span<const TokenId> history) {
    const bool is_guilty = history.size() == 8 && history[1] == FakeTokenizer::kFirstByte + 'X';
    return is_guilty ? absl::InternalError("bad luck") : absl::OkStatus();
  });
  std::map<std::string, std::shared_ptr<RecordingSink>> sinks;
  fake.control->Hold();
  for (const char* prompt : {"a", "X", "b"}) {
    sinks[prompt] = std::make_shared<RecordingSink>();
    ASSERT_TRUE(fake.engine->Submit(GenerateRequest(prompt, 30, sinks[prompt])).ok());
  }
  fake.control->Release();

  EXPECT_EQ(sinks["X"]->WaitUntilDone().status, absl::InternalError("bad luck"));
  EXPECT_THAT(sinks["X"]->tokens(), SizeIs(6));
  for (const char* prompt : {"a", "b"}) {
    EXPECT_TRUE(sinks[prompt]->WaitUntilDone().status.ok());
    EXPECT_THAT(sinks[prompt]->text(), SizeIs(30));
  }
}

TEST(EngineTest, AFailureThatDoesNotComeBackAloneHurtsNobody) {
  FakeEngine fake;
  auto first = std::make_shared<RecordingSink>();
  auto second = std::make_shared<RecordingSink>();
  int calls = 0;
  fake.control->FailIf([&calls](std::span<const TokenId> history) {
    return history.size() == 5 && calls++ == 0 ? absl::InternalError("once") : absl::OkStatus();
  });
  fake.control->Hold();
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("ab", 10, first)).ok());
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("cd", 10, second)).ok());
  fake.control->Release();

  EXPECT_TRUE(first->WaitUntilDone().status.ok());
  EXPECT_TRUE(second->WaitUntilDone().status.ok());
}

TEST(EngineTest, AModelThatIsLostAtTheSecondTryIsLost) {
  absl::Status lost;
  FakeEngine fake({.on_model_lost = [&lost](const absl::Status& status) { lost = status; }});
  auto first = std::make_shared<RecordingSink>();
  auto second = std::make_shared<RecordingSink>();
  int calls = 0;
  fake.control->FailIf([&calls](std::span<const TokenId>) -> absl::Status {
    return calls++ == 0 ? absl::InternalError("once") : absl::UnavailableError("gone");
  });
  fake.control->Hold();
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("ab", 10, first)).ok());
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("cd", 10, second)).ok());
  fake.control->Release();

  EXPECT_TRUE(absl::IsUnavailable(first->WaitUntilDone().status));
  EXPECT_TRUE(absl::IsUnavailable(second->WaitUntilDone().status));
  EXPECT_TRUE(absl::IsUnavailable(lost));
}

// A model that promises itself smaller than it is.
class MiscountingModel final : public FakeModel {
 public:
  MiscountingModel() : FakeModel({.total_pages = 10}) {}
  int PagesFor(int64_t) const override { return 1; }
};

TEST(EngineTest, ASequenceThatGetsNoPageEndsAloneAndTheOthersGoOn) {
  FakeEngine fake({}, std::make_unique<MiscountingModel>());
  auto big = std::make_shared<RecordingSink>();
  auto small = std::make_shared<RecordingSink>();

  fake.control->Hold();
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("a", 3, small)).ok());
  fake.control->WaitUntilHeld();  // it has its page, and needs no other
  ASSERT_TRUE(fake.engine->Submit(TextRequest(Task::kEmbed, Letters(1000), big)).ok());
  fake.control->Release();

  EXPECT_TRUE(absl::IsResourceExhausted(big->WaitUntilDone().status));
  EXPECT_TRUE(small->WaitUntilDone().status.ok());
}

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
