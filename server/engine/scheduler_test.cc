#include "server/engine/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace evaserve {

void PrintTo(const StepPiece& piece, std::ostream* os) {
  *os << (piece.is_prefill ? "prefill " : "decode ") << piece.id << ":" << piece.num_tokens;
}

bool operator==(const StepPiece& a, const StepPiece& b) {
  return a.id == b.id && a.num_tokens == b.num_tokens && a.is_prefill == b.is_prefill;
}

namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

StepPiece Prefill(RequestId id, int num_tokens) { return {id, num_tokens, true}; }
StepPiece Decode(RequestId id) { return {id, 1, false}; }

// A window of `window` tokens from where the sequence is.
auto Window(int window) {
  return [window](RequestId) { return window; };
}

TEST(SchedulerTest, AdmitsInOrderWhilePagesLast) {
  Scheduler scheduler({.total_pages = 10});
  scheduler.Enqueue({.id = 1, .prefill_tokens = 5, .pages = 4});
  scheduler.Enqueue({.id = 2, .prefill_tokens = 5, .pages = 6});
  scheduler.Enqueue({.id = 3, .prefill_tokens = 5, .pages = 1});

  EXPECT_THAT(scheduler.Admit(), ElementsAre(1, 2));
  EXPECT_EQ(scheduler.promised_pages(), 10);
  EXPECT_EQ(scheduler.num_waiting(), 1);
}

TEST(SchedulerTest, NeverSkipsTheHeadOfTheLine) {
  Scheduler scheduler({.total_pages = 10});
  scheduler.Enqueue({.id = 1, .prefill_tokens = 5, .pages = 5});
  scheduler.Enqueue({.id = 2, .prefill_tokens = 5, .pages = 6});
  scheduler.Enqueue({.id = 3, .prefill_tokens = 5, .pages = 1});
  EXPECT_THAT(scheduler.Admit(), ElementsAre(1));

  scheduler.Remove(1);

  EXPECT_THAT(scheduler.Admit(), ElementsAre(2, 3));
}

TEST(SchedulerTest, AdmitsAtMostMaxRunning) {
  Scheduler scheduler({.max_running = 2, .total_pages = 10});
  for (RequestId id : {1, 2, 3}) scheduler.Enqueue({.id = id, .prefill_tokens = 1, .pages = 1});

  EXPECT_THAT(scheduler.Admit(), ElementsAre(1, 2));
  EXPECT_THAT(scheduler.Admit(), IsEmpty());

  scheduler.Remove(2);
  EXPECT_THAT(scheduler.Admit(), ElementsAre(3));
}

TEST(SchedulerTest, AdmitsNoMoreSequencesThanAStepHasTokens) {
  Scheduler scheduler({.max_batch_tokens = 1, .max_running = 2, .total_pages = 10});
  for (RequestId id : {1, 2}) scheduler.Enqueue({.id = id, .prefill_tokens = 1, .pages = 1});

  EXPECT_THAT(scheduler.Admit(), ElementsAre(1));
}

TEST(SchedulerTest, APromptWhoseTokensHaveNotComeLeavesItsShareToOthers) {
  Scheduler scheduler({.max_batch_tokens = 256, .total_pages = 10});
  for (RequestId id : {1, 2, 3}) scheduler.Enqueue({.id = id, .prefill_tokens = 500, .pages = 1});
  scheduler.Admit();

  const auto only_two_and_three = [](RequestId id) { return id == 1 ? 0 : 500; };

  EXPECT_THAT(scheduler.FormStep(only_two_and_three),
              ElementsAre(Prefill(2, 128), Prefill(3, 128)));
}

TEST(SchedulerTest, ARemovedWaitingRequestIsNotAdmitted) {
  Scheduler scheduler({.total_pages = 10});
  for (RequestId id : {1, 2}) scheduler.Enqueue({.id = id, .prefill_tokens = 1, .pages = 1});

  scheduler.Remove(1);

  EXPECT_THAT(scheduler.Admit(), ElementsAre(2));
  EXPECT_EQ(scheduler.promised_pages(), 1);
}

TEST(SchedulerTest, FormsNothingOfNothing) {
  Scheduler scheduler({.total_pages = 10});
  scheduler.Enqueue({.id = 1, .prefill_tokens = 1, .pages = 1});

  EXPECT_THAT(scheduler.FormStep(Window(8)), IsEmpty()) << "not admitted yet";
}

TEST(SchedulerTest, CutsPromptsAtTheWindowBoundary) {
  Scheduler scheduler({.max_batch_tokens = 100, .total_pages = 10});
  scheduler.Enqueue({.id = 1, .prefill_tokens = 20, .pages = 1});
  scheduler.Admit();

  EXPECT_THAT(scheduler.FormStep(Window(8)), ElementsAre(Prefill(1, 8)));
  EXPECT_THAT(scheduler.FormStep(Window(8)), ElementsAre(Prefill(1, 8)));
  EXPECT_THAT(scheduler.FormStep(Window(8)), ElementsAre(Prefill(1, 4)));
  EXPECT_THAT(scheduler.FormStep(Window(8)), ElementsAre(Decode(1)));
}

TEST(SchedulerTest, SeveralPromptsShareAStepWithinTheBudget) {
  Scheduler scheduler({.max_batch_tokens = 20, .total_pages = 10});
  for (RequestId id : {1, 2, 3, 4}) {
    scheduler.Enqueue({.id = id, .prefill_tokens = 30, .pages = 1});
  }
  scheduler.Admit();

  EXPECT_THAT(scheduler.FormStep(Window(8)),
              ElementsAre(Prefill(1, 8), Prefill(2, 8), Prefill(3, 4)));
}

TEST(SchedulerTest, AShortPromptRunsBesideALongOlderOne) {
  Scheduler scheduler({.max_batch_tokens = 20, .total_pages = 10});
  scheduler.Enqueue({.id = 1, .prefill_tokens = 1000, .pages = 1});
  scheduler.Enqueue({.id = 2, .prefill_tokens = 3, .pages = 1});
  scheduler.Admit();

  EXPECT_THAT(scheduler.FormStep(Window(8)), ElementsAre(Prefill(1, 8), Prefill(2, 3)));
}

TEST(SchedulerTest, PromptsShareTheBudgetEqually) {
  Scheduler scheduler({.max_batch_tokens = 1000, .total_pages = 10});
  for (RequestId id : {1, 2}) scheduler.Enqueue({.id = id, .prefill_tokens = 9000, .pages = 1});
  scheduler.Admit();

  EXPECT_THAT(scheduler.FormStep(Window(2048)), ElementsAre(Prefill(1, 500), Prefill(2, 500)));
}

// So a short prompt behind a long one is done in one step, and nothing of the step is wasted.
TEST(SchedulerTest, AnOlderPromptGetsWhatAShortOneLeaves) {
  Scheduler scheduler({.max_batch_tokens = 1000, .total_pages = 10});
  scheduler.Enqueue({.id = 1, .prefill_tokens = 9000, .pages = 1});
  scheduler.Enqueue({.id = 2, .prefill_tokens = 100, .pages = 1});
  scheduler.Admit();

  EXPECT_THAT(scheduler.FormStep(Window(2048)), ElementsAre(Prefill(1, 900), Prefill(2, 100)));
}

TEST(SchedulerTest, SharesAreNotCutTooSmall) {
  Scheduler scheduler({.max_batch_tokens = 300, .total_pages = 10});
  for (RequestId id : {1, 2, 3, 4}) {
    scheduler.Enqueue({.id = id, .prefill_tokens = 9000, .pages = 1});
  }
  scheduler.Admit();

  EXPECT_THAT(scheduler.FormStep(Window(2048)), ElementsAre(Prefill(1, 150), Prefill(2, 150)));
}

TEST(SchedulerTest, ASmallerPriorityGoesFirst) {
  Scheduler scheduler({.max_batch_tokens = 100, .max_running = 2, .total_pages = 10});
  scheduler.Enqueue({.id = 1, .prefill_tokens = 500, .pages = 1, .priority = 5});
  scheduler.Enqueue({.id = 2, .prefill_tokens = 500, .pages = 1, .priority = 5});
  scheduler.Enqueue({.id = 3, .prefill_tokens = 500, .pages = 1, .priority = 1});

  EXPECT_THAT(scheduler.Admit(), ElementsAre(3, 1));
  EXPECT_THAT(scheduler.FormStep(Window(2048)), ElementsAre(Prefill(3, 100)));
}

TEST(SchedulerTest, DecodesComeBeforePromptsAndCountInTheBudget) {
  Scheduler scheduler({.max_batch_tokens = 4, .total_pages = 10});
  for (RequestId id : {1, 2}) scheduler.Enqueue({.id = id, .prefill_tokens = 2, .pages = 1});
  scheduler.Admit();
  scheduler.FormStep(Window(8));
  scheduler.Enqueue({.id = 3, .prefill_tokens = 8, .pages = 1});
  scheduler.Admit();

  EXPECT_THAT(scheduler.FormStep(Window(8)), ElementsAre(Decode(1), Decode(2), Prefill(3, 2)));
}

TEST(SchedulerTest, APausedSequenceSitsOutAndKeepsItsPages) {
  Scheduler scheduler({.total_pages = 10});
  for (RequestId id : {1, 2}) scheduler.Enqueue({.id = id, .prefill_tokens = 2, .pages = 3});
  scheduler.Admit();
  scheduler.FormStep(Window(8));

  scheduler.SetPaused(1, true);
  EXPECT_THAT(scheduler.FormStep(Window(8)), ElementsAre(Decode(2)));
  EXPECT_EQ(scheduler.promised_pages(), 6);

  scheduler.SetPaused(1, false);
  EXPECT_THAT(scheduler.FormStep(Window(8)), ElementsAre(Decode(1), Decode(2)));
}

TEST(SchedulerTest, RemovingASequenceReturnsItsPages) {
  Scheduler scheduler({.total_pages = 10});
  for (RequestId id : {1, 2}) scheduler.Enqueue({.id = id, .prefill_tokens = 2, .pages = 3});
  scheduler.Admit();

  scheduler.Remove(1);

  EXPECT_EQ(scheduler.promised_pages(), 3);
  EXPECT_EQ(scheduler.num_running(), 1);
  EXPECT_THAT(scheduler.FormStep(Window(8)), ElementsAre(Prefill(2, 2)));
}

}  // namespace
}  // namespace evaserve
