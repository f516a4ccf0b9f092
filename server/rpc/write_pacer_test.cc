#include "server/rpc/write_pacer.h"

#include <gtest/gtest.h>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

namespace evaserve {
namespace {

TEST(WritePacerTest, TheFirstMessageStartsAtOnce) {
  WritePacer pacer;

  EXPECT_TRUE(pacer.TryStart([] { FAIL(); }));
}

TEST(WritePacerTest, OneTooSoonIsCalledBack) {
  WritePacer pacer;
  absl::Notification called;
  const TimePoint start = Clock::now();
  ASSERT_TRUE(pacer.TryStart([] { FAIL(); }));

  // As often as it takes: the machine may be slower than the interval.
  bool started = true;
  while (started) started = pacer.TryStart([&called] { called.Notify(); });

  EXPECT_TRUE(called.WaitForNotificationWithTimeout(absl::Seconds(10)));
  EXPECT_GE(Clock::now() - start, WritePacer::kMinInterval);
}

TEST(WritePacerTest, KeepsOneCallbackAtATime) {
  WritePacer pacer;
  absl::Notification called;
  bool started = true;
  while (started) started = pacer.TryStart([&called] { called.Notify(); });

  // A second call would abort in Notify().
  while (!called.HasBeenNotified()) pacer.TryStart([&called] { called.Notify(); });

  EXPECT_TRUE(called.HasBeenNotified());
}

}  // namespace
}  // namespace evaserve
