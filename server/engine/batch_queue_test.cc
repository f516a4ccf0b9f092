#include "server/engine/batch_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace evaserve {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

const TimePoint kStart{std::chrono::hours(1)};

TEST(BatchQueueTest, RunsWhatWaitsTogether) {
  BatchQueue queue({});
  for (uint64_t id : {1, 2, 3}) ASSERT_TRUE(queue.Push({.id = id, .submitted = kStart}).ok());

  EXPECT_THAT(queue.TakeReady(kStart), ElementsAre(1, 2, 3));
  EXPECT_THAT(queue.TakeReady(kStart), IsEmpty());
  EXPECT_EQ(queue.NextWakeUp(), std::nullopt);
}

TEST(BatchQueueTest, WaitsForCompanyUntilMaxQueueDelay) {
  BatchQueue queue({.max_queue_delay = milliseconds(5)});
  ASSERT_TRUE(queue.Push({.id = 1, .submitted = kStart}).ok());

  EXPECT_THAT(queue.TakeReady(kStart + milliseconds(4)), IsEmpty());
  EXPECT_EQ(queue.NextWakeUp(), kStart + milliseconds(5));
  EXPECT_THAT(queue.TakeReady(kStart + milliseconds(5)), ElementsAre(1));
}

TEST(BatchQueueTest, AFullBatchDoesNotWait) {
  BatchQueue queue({.max_batch_size = 4, .max_queue_delay = milliseconds(5)});
  ASSERT_TRUE(queue.Push({.id = 1, .rows = 3, .submitted = kStart}).ok());
  ASSERT_TRUE(queue.Push({.id = 2, .rows = 1, .submitted = kStart}).ok());

  EXPECT_EQ(queue.NextWakeUp(), TimePoint::min());
  EXPECT_THAT(queue.TakeReady(kStart), ElementsAre(1, 2));
}

TEST(BatchQueueTest, EndsABatchBeforeTheRequestThatDoesNotFitAndSkipsNone) {
  BatchQueue queue({.max_batch_size = 4, .max_queue_delay = milliseconds(5)});
  ASSERT_TRUE(queue.Push({.id = 1, .rows = 2, .submitted = kStart}).ok());
  ASSERT_TRUE(queue.Push({.id = 2, .rows = 3, .submitted = kStart}).ok());
  ASSERT_TRUE(queue.Push({.id = 3, .rows = 1, .submitted = kStart}).ok());

  EXPECT_THAT(queue.TakeReady(kStart), ElementsAre(1));
  EXPECT_THAT(queue.TakeReady(kStart), ElementsAre(2, 3));
}

TEST(BatchQueueTest, ABatchHasNoMoreTokensThanAllowed) {
  BatchQueue queue({.max_batch_tokens = 10, .max_queue_delay = milliseconds(5)});
  ASSERT_TRUE(queue.Push({.id = 1, .tokens = 6, .submitted = kStart}).ok());
  ASSERT_TRUE(queue.Push({.id = 2, .tokens = 4, .submitted = kStart}).ok());
  EXPECT_THAT(queue.TakeReady(kStart), IsEmpty());
  ASSERT_TRUE(queue.Push({.id = 3, .tokens = 1, .submitted = kStart}).ok());
  ASSERT_TRUE(queue.Push({.id = 4, .tokens = 99, .submitted = kStart}).ok());

  EXPECT_EQ(queue.NextWakeUp(), TimePoint::min());
  EXPECT_THAT(queue.TakeReady(kStart), ElementsAre(1, 2));
  EXPECT_THAT(queue.TakeReady(kStart), ElementsAre(3));
  EXPECT_THAT(queue.TakeReady(kStart + milliseconds(5)), ElementsAre(4));
}

TEST(BatchQueueTest, APreferredSizeDoesNotWait) {
  BatchQueue queue({.preferred_batch_sizes = {2, 4}, .max_queue_delay = milliseconds(5)});
  ASSERT_TRUE(queue.Push({.id = 1, .submitted = kStart}).ok());
  EXPECT_THAT(queue.TakeReady(kStart), IsEmpty());
  for (uint64_t id : {2, 3}) ASSERT_TRUE(queue.Push({.id = id, .submitted = kStart}).ok());

  EXPECT_EQ(queue.NextWakeUp(), TimePoint::min());
  EXPECT_THAT(queue.TakeReady(kStart), ElementsAre(1, 2));
  EXPECT_THAT(queue.TakeReady(kStart), IsEmpty());
  for (uint64_t id : {4, 5, 6, 7, 8}) ASSERT_TRUE(queue.Push({.id = id, .submitted = kStart}).ok());
  EXPECT_THAT(queue.TakeReady(kStart), ElementsAre(3, 4, 5, 6));
  EXPECT_THAT(queue.TakeReady(kStart + milliseconds(5)), ElementsAre(7, 8));
}

TEST(BatchQueueTest, WhatHasWaitedLongEnoughRunsInAnySize) {
  BatchQueue queue({.preferred_batch_sizes = {2}, .max_queue_delay = milliseconds(5)});
  for (uint64_t id : {1, 2, 3}) ASSERT_TRUE(queue.Push({.id = id, .submitted = kStart}).ok());
  EXPECT_THAT(queue.TakeReady(kStart + milliseconds(5)), ElementsAre(1, 2, 3));
}

TEST(BatchQueueTest, OneThatIsLargerThanABatchRunsAlone) {
  BatchQueue queue({.max_batch_size = 4});
  ASSERT_TRUE(queue.Push({.id = 1, .rows = 9, .submitted = kStart}).ok());
  ASSERT_TRUE(queue.Push({.id = 2, .rows = 1, .submitted = kStart}).ok());

  EXPECT_THAT(queue.TakeReady(kStart), ElementsAre(1));
}

TEST(BatchQueueTest, TheUrgentGoFirst) {
  BatchQueue queue({.max_batch_size = 2});
  ASSERT_TRUE(queue.Push({.id = 1, .submitted = kStart}).ok());
  ASSERT_TRUE(queue.Push({.id = 2, .priority = kMostUrgent, .submitted = kStart}).ok());
  ASSERT_TRUE(queue.Push({.id = 3, .priority = kMostUrgent, .submitted = kStart}).ok());

  EXPECT_THAT(queue.TakeReady(kStart), ElementsAre(2, 3));
}

TEST(BatchQueueTest, ExpiredOnesDoNotRun) {
  BatchQueue queue({.max_queue_delay = milliseconds(5)});
  ASSERT_TRUE(queue.Push({.id = 1, .submitted = kStart, .expires = kStart + milliseconds(2)}).ok());
  ASSERT_TRUE(queue.Push({.id = 2, .submitted = kStart}).ok());

  EXPECT_EQ(queue.NextWakeUp(), kStart + milliseconds(2));
  EXPECT_THAT(queue.TakeExpired(kStart + milliseconds(1)), IsEmpty());
  EXPECT_THAT(queue.TakeExpired(kStart + milliseconds(2)), ElementsAre(1));
  EXPECT_THAT(queue.TakeReady(kStart + milliseconds(5)), ElementsAre(2));
}

TEST(BatchQueueTest, ARemovedOneDoesNotRun) {
  BatchQueue queue({});
  ASSERT_TRUE(queue.Push({.id = 1, .submitted = kStart}).ok());

  EXPECT_TRUE(queue.Remove(1));
  EXPECT_FALSE(queue.Remove(1));
  EXPECT_THAT(queue.TakeReady(kStart), IsEmpty());
}

TEST(BatchQueueTest, RefusesTokensAndBytesThatAreTooMany) {
  BatchQueue queue({.waiting = {.max_waiting_tokens = 10, .max_waiting_bytes = 100}});
  ASSERT_TRUE(queue.Push({.id = 1, .tokens = 6, .bytes = 60}).ok());

  EXPECT_EQ(queue.Push({.id = 2, .tokens = 5}).message(),
            "6 tokens are waiting, 5 more would pass the limit of 10");
  EXPECT_EQ(queue.Push({.id = 3, .bytes = 41}).message(),
            "60 bytes of tensors are waiting, 41 more would pass the limit of 100");
  EXPECT_TRUE(queue.Push({.id = 4, .tokens = 4, .bytes = 40}).ok());
  EXPECT_EQ(queue.waiting_tokens(), 10);
}

TEST(BatchQueueTest, OneAloneMayHaveMoreThanMayWait) {
  BatchQueue queue({.waiting = {.max_waiting_tokens = 10, .max_waiting_bytes = 100}});

  EXPECT_TRUE(queue.Push({.id = 1, .tokens = 11, .bytes = 101}).ok());
}

TEST(BatchQueueTest, RefusesWhenFull) {
  BatchQueue queue({.waiting = {.max_waiting = 1}});
  ASSERT_TRUE(queue.Push({.id = 1, .submitted = kStart}).ok());

  EXPECT_TRUE(absl::IsResourceExhausted(queue.Push({.id = 2, .submitted = kStart})));
  queue.TakeReady(kStart);
  EXPECT_TRUE(queue.Push({.id = 3, .submitted = kStart}).ok());
}

TEST(BatchQueueTest, RefusesAsTritonDoesIfAskedTo) {
  BatchQueue queue(
      {.waiting = {.max_waiting = 0, .overload_status = OverloadStatus::kUnavailable}});

  const absl::Status status = queue.Push({.id = 1, .submitted = kStart});

  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_TRUE(IsOverload(status));
}

TEST(BatchQueueTest, AfterCloseNothingWaitsAndNothingComes) {
  BatchQueue queue({.max_queue_delay = milliseconds(5)});
  ASSERT_TRUE(queue.Push({.id = 1, .submitted = kStart}).ok());

  queue.Close();

  EXPECT_TRUE(absl::IsUnavailable(queue.Push({.id = 2, .submitted = kStart})));
  EXPECT_EQ(queue.NextWakeUp(), TimePoint::min());
  EXPECT_THAT(queue.TakeReady(kStart), ElementsAre(1));
}

}  // namespace
}  // namespace evaserve
