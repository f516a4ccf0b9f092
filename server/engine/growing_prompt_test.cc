// Prompts that come in pieces.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "server/engine/engine.h"
#include "tests/fakes/fake_engine.h"

namespace evaserve {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using Piece = FakeModelControl::Piece;
using Handle = std::shared_ptr<RequestHandle>;

const std::string kBegin = "a prompt that comes ";
const std::string kEnd = "in two pieces, the second of them longer than a window";

std::vector<TokenId> Bytes(const FakeEngine& fake, const std::string& text) {
  std::vector<TokenId> tokens;
  for (char c : text)
    tokens.push_back(*fake.engine->tokenizer().ByteToken(static_cast<uint8_t>(c)));
  return tokens;
}

// Of which `begin` is there and `tokens_to_come` are not.
Request Growing(const std::string& begin, int64_t tokens_to_come,
                std::shared_ptr<ResponseSink> sink) {
  Request request = GenerateRequest(begin, 10, std::move(sink));
  request.tokens_to_come = tokens_to_come;
  return request;
}

Handle Submit(FakeEngine& fake, Request request) {
  absl::StatusOr<Handle> handle = fake.engine->Submit(std::move(request));
  EXPECT_TRUE(handle.ok()) << handle.status();
  return *handle;
}

TEST(GrowingPromptTest, SaysTheSameAsThePromptInOnePiece) {
  FakeEngine fake;
  auto whole = std::make_shared<RecordingSink>(), grown = std::make_shared<RecordingSink>();
  Submit(fake, GenerateRequest(kBegin + kEnd, 10, whole));

  const Handle handle = Submit(fake, Growing(kBegin, std::ssize(kEnd), grown));
  ASSERT_TRUE(handle->Append(Bytes(fake, kEnd.substr(0, 7))).ok());
  ASSERT_TRUE(handle->Append(Bytes(fake, kEnd.substr(7))).ok());

  const Completion completion = grown->WaitUntilDone();
  whole->WaitUntilDone();
  EXPECT_EQ(grown->text(), whole->text());
  EXPECT_EQ(completion.usage.prompt_tokens, std::ssize(kBegin + kEnd) + 1);
}

TEST(GrowingPromptTest, WhatHasComeIsTakenInBeforeTheRest) {
  FakeEngine fake;
  auto sink = std::make_shared<RecordingSink>();

  const Handle handle = Submit(fake, Growing("four", 3, sink));

  fake.control->WaitForSteps(1);
  EXPECT_THAT(fake.control->steps().front(), Contains(Piece{.length = 0, .num_tokens = 5}));
  ASSERT_TRUE(handle->Append(Bytes(fake, "abc")).ok());
  EXPECT_TRUE(sink->WaitUntilDone().status.ok());
}

TEST(GrowingPromptTest, OthersGoOnWhileItWaits) {
  FakeEngine fake;
  auto waiting = std::make_shared<RecordingSink>(), other = std::make_shared<RecordingSink>();
  const Handle handle = Submit(fake, Growing("four", 3, waiting));

  Submit(fake, GenerateRequest("other", 5, other));

  EXPECT_TRUE(other->WaitUntilDone().status.ok());
  EXPECT_EQ(waiting->num_done(), 0);
}

TEST(GrowingPromptTest, TheRepetitionPenaltyKnowsEveryPiece) {
  FakeEngine fake;
  auto whole = std::make_shared<RecordingSink>(), grown = std::make_shared<RecordingSink>();
  const auto penalised = [](Request request) {
    request.generate.sampling.repetition_penalty = 100;
    return request;
  };
  Submit(fake, penalised(GenerateRequest("abcdefghijklmnopqrstuvw", 3, whole)));

  const Handle handle = Submit(fake, penalised(Growing("a", 22, grown)));
  ASSERT_TRUE(handle->Append(Bytes(fake, "bcdefghijklmnopqrstuvw")).ok());

  whole->WaitUntilDone();
  grown->WaitUntilDone();
  EXPECT_EQ(grown->text().substr(0, 3), whole->text());
}

TEST(GrowingPromptTest, AScoreMayGrowToo) {
  FakeEngine fake;
  auto whole = std::make_shared<RecordingSink>(), grown = std::make_shared<RecordingSink>();
  Request score = GenerateRequest(kBegin + kEnd, 1, whole);
  score.task = Task::kScore;
  Submit(fake, std::move(score));

  Request growing = Growing(kBegin, std::ssize(kEnd), grown);
  growing.task = Task::kScore;
  const Handle handle = Submit(fake, std::move(growing));
  fake.control->WaitForSteps(1);
  ASSERT_TRUE(handle->Append(Bytes(fake, kEnd)).ok());

  EXPECT_EQ(grown->WaitUntilDone().logprobs, whole->WaitUntilDone().logprobs);
}

TEST(GrowingPromptTest, RefusesMoreThanWasSaid) {
  FakeEngine fake;
  auto sink = std::make_shared<RecordingSink>();
  const Handle handle = Submit(fake, Growing("four", 3, sink));
  ASSERT_TRUE(handle->Append(Bytes(fake, "ab")).ok());

  const absl::Status status = handle->Append(Bytes(fake, "cd"));

  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("2 more tokens, allowed are 1"));
  ASSERT_TRUE(handle->Append(Bytes(fake, "c")).ok()) << "the refused piece has changed nothing";
  EXPECT_TRUE(sink->WaitUntilDone().status.ok());
}

TEST(GrowingPromptTest, RefusesATokenOutsideTheVocabulary) {
  FakeEngine fake;
  const Handle handle = Submit(fake, Growing("four", 3, std::make_shared<RecordingSink>()));

  const absl::Status status = handle->Append(std::vector<TokenId>{fake.engine->info().vocab_size});

  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
}

TEST(GrowingPromptTest, AWholePromptTakesNoPieces) {
  FakeEngine fake;
  const Handle handle =
      Submit(fake, GenerateRequest("whole", 10, std::make_shared<RecordingSink>()));

  EXPECT_TRUE(absl::IsInvalidArgument(handle->Append(Bytes(fake, "a"))));
}

TEST(GrowingPromptTest, ItsWholeLengthCountsAgainstTheLimits) {
  FakeEngine fake({.max_prompt_tokens = 8});

  const auto handle =
      fake.engine->Submit(Growing("four", 4, std::make_shared<RecordingSink>())).status();

  EXPECT_TRUE(absl::IsInvalidArgument(handle)) << handle;
}

TEST(GrowingPromptTest, CancelFreesItsStateWhileItWaits) {
  FakeEngine fake;
  auto sink = std::make_shared<RecordingSink>();
  const Handle handle = Submit(fake, Growing("four", 3, sink));
  fake.control->WaitForSteps(1);

  handle->Cancel();

  EXPECT_TRUE(absl::IsCancelled(sink->WaitUntilDone().status));
  EXPECT_EQ(fake.control->live_sequences(), 0);
  EXPECT_TRUE(handle->Append(Bytes(fake, "abc")).ok()) << "after the end nothing happens";
}

EngineOptions PieceWait(std::chrono::milliseconds wait) { return {.max_piece_wait = wait}; }

TEST(GrowingPromptTest, ASilentClientLosesItsPlace) {
  FakeEngine fake(PieceWait(std::chrono::milliseconds(20)));
  auto sink = std::make_shared<RecordingSink>();

  const Handle handle = Submit(fake, Growing("four", 3, sink));

  const absl::Status status = sink->WaitUntilDone().status;
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("no piece of the prompt has come in 20 ms (max_piece_wait), 3 of its 8 "
                        "tokens are missing"));
  EXPECT_EQ(fake.control->live_sequences(), 0);
}

TEST(GrowingPromptTest, SilenceIsMeasuredFromTheLastPiece) {
  FakeEngine fake(PieceWait(std::chrono::milliseconds(800)));
  auto sink = std::make_shared<RecordingSink>();
  const Handle handle = Submit(fake, Growing("four", 4, sink));

  for (const char* piece : {"a", "b", "c", "d"}) {  // 1000 ms in all
    std::this_thread::sleep_for(std::chrono::milliseconds(250));
    ASSERT_TRUE(handle->Append(Bytes(fake, piece)).ok());
  }

  EXPECT_TRUE(sink->WaitUntilDone().status.ok());
}

TEST(GrowingPromptTest, APieceOfNothingIsSilence) {
  FakeEngine fake(PieceWait(std::chrono::milliseconds(50)));
  auto sink = std::make_shared<RecordingSink>();
  const Handle handle = Submit(fake, Growing("four", 3, sink));

  while (sink->num_done() == 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    ASSERT_TRUE(handle->Append({}).ok());
  }

  EXPECT_TRUE(absl::IsDeadlineExceeded(sink->WaitUntilDone().status));
}

// What the client waits for is no silence of the client.
TEST(GrowingPromptTest, TheEnginesOwnTimeIsNoSilence) {
  EngineOptions options = PieceWait(std::chrono::milliseconds(50));
  options.max_running = 1;
  FakeEngine fake(options);
  fake.control->Hold();
  auto first = std::make_shared<RecordingSink>(), sink = std::make_shared<RecordingSink>();
  Submit(fake, GenerateRequest("holds the place", 1, first));
  fake.control->WaitUntilHeld();
  const Handle handle = Submit(fake, Growing("four", 3, sink));
  std::this_thread::sleep_for(std::chrono::milliseconds(60));  // it waits for a place
  fake.control->AllowSteps(1);
  first->WaitUntilDone();
  fake.control->WaitUntilHeld();
  std::this_thread::sleep_for(std::chrono::milliseconds(60));  // it waits for its step
  ASSERT_TRUE(handle->Append(Bytes(fake, "abc")).ok());

  fake.control->Release();

  EXPECT_TRUE(sink->WaitUntilDone().status.ok());
}

TEST(GrowingPromptTest, WithoutALimitAClientMayBeSilent) {
  FakeEngine fake(PieceWait(std::chrono::milliseconds(0)));
  auto sink = std::make_shared<RecordingSink>();
  const Handle handle = Submit(fake, Growing("four", 3, sink));
  fake.control->WaitForSteps(1);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));

  ASSERT_TRUE(handle->Append(Bytes(fake, "abc")).ok());

  EXPECT_TRUE(sink->WaitUntilDone().status.ok());
}

TEST(GrowingPromptTest, ADeadlineEndsItWhileItWaits) {
  FakeEngine fake;
  auto sink = std::make_shared<RecordingSink>();
  Request request = Growing("four", 3, sink);
  request.deadline = Clock::now() + std::chrono::milliseconds(20);

  Submit(fake, std::move(request));

  EXPECT_TRUE(absl::IsDeadlineExceeded(sink->WaitUntilDone().status));
}

}  // namespace
}  // namespace evaserve
