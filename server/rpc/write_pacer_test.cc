#include "server/rpc/write_pacer.h"

#include <gtest/gtest.h>

#include <thread>

#include "absl/synchronization/mutex.h"
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

// Otherwise a stream that is kept alive by its callback would never go.
TEST(WritePacerTest, LetsGoOfTheCallbackOnceItHasBeenCalled) {
  absl::Mutex mutex;  // as a stream has one
  WritePacer pacer;
  auto stream = std::make_shared<int>();
  bool started = true;
  while (started) {
    absl::MutexLock lock(&mutex);
    started = pacer.TryStart([&, kept = stream] {
      absl::MutexLock lock(&mutex);
      pacer.OnRetry();
    });
  }

  const TimePoint deadline = Clock::now() + std::chrono::seconds(10);
  while (stream.use_count() > 1 && Clock::now() < deadline) std::this_thread::yield();

  EXPECT_EQ(stream.use_count(), 1);
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
