#include "server/engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "tests/fakes/fake_engine.h"

namespace evaserve {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;
using Piece = FakeModelControl::Piece;

FakeModel::Options ModelThatSays(const std::string& text, const std::string& prompt) {
  return {.next_token = Saying(text, prompt.size() + 1)};
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

// Two generations whose first steps are one.
void SubmitTogether(FakeEngine& fake, std::shared_ptr<ResponseSink> first,
                    std::shared_ptr<ResponseSink> second) {
  std::vector<Request> requests;
  requests.push_back(GenerateRequest("ab", 10, std::move(first)));
  requests.push_back(GenerateRequest("cd", 10, std::move(second)));
  ASSERT_TRUE(fake.engine->SubmitAll(std::move(requests)).ok());
}

TEST(EngineTest, AFailureThatDoesNotComeBackAloneHurtsNobody) {
  FakeEngine fake;
  auto first = std::make_shared<RecordingSink>();
  auto second = std::make_shared<RecordingSink>();
  int calls = 0;
  fake.control->FailIf([&calls](std::span<const TokenId> history) {
    return history.size() == 5 && calls++ == 0 ? absl::InternalError("once") : absl::OkStatus();
  });
  SubmitTogether(fake, first, second);

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
  SubmitTogether(fake, first, second);

  EXPECT_TRUE(absl::IsUnavailable(first->WaitUntilDone().status));
  EXPECT_TRUE(absl::IsUnavailable(second->WaitUntilDone().status));
  EXPECT_TRUE(absl::IsUnavailable(lost));
}

TEST(EngineTest, AStepWithoutMemoryEndsItsSequencesAndTheEngineServesOn) {
  FakeEngine fake;
  int calls = 0;
  fake.control->FailIf([&calls](std::span<const TokenId>) -> absl::Status {
    if (calls++ == 0) throw std::bad_alloc();
    return absl::OkStatus();
  });
  auto first = std::make_shared<RecordingSink>(), second = std::make_shared<RecordingSink>();
  SubmitTogether(fake, first, second);

  for (const auto& sink : {first, second}) {
    EXPECT_EQ(sink->WaitUntilDone().status,
              absl::ResourceExhaustedError("the step: not enough memory"));
  }
  auto next = std::make_shared<RecordingSink>();
  ASSERT_TRUE(fake.engine->Submit(GenerateRequest("ef", 10, next)).ok());
  EXPECT_TRUE(next->WaitUntilDone().status.ok());
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

}  // namespace
}  // namespace evaserve
