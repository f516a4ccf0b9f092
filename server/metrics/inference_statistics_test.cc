#include "server/metrics/inference_statistics.h"

#include <gtest/gtest.h>

#include "tests/fakes/recording_observer.h"

namespace evaserve {
namespace {

using std::chrono::microseconds;

Completion Done(absl::Status status, int queue_us, int total_us) {
  Completion completion;
  completion.status = std::move(status);
  completion.timings.queue = microseconds(queue_us);
  completion.timings.total = microseconds(total_us);
  return completion;
}

TEST(InferenceStatisticsTest, AddsUpByModelAndVersion) {
  InferenceStatistics statistics;
  const auto one = statistics.MakeObserver("m", 1, std::make_unique<RecordingObserver>());
  const auto two = statistics.MakeObserver("m", 2, std::make_unique<RecordingObserver>());

  one->OnDone(Task::kGenerate, Done(absl::OkStatus(), 10, 100));
  one->OnDone(Task::kScore, Done(absl::OkStatus(), 20, 50));
  one->OnDone(Task::kGenerate, Done(absl::InternalError(""), 1, 7));
  one->OnDone(Task::kGenerate, Done(absl::CancelledError(""), 1, 8));
  one->OnStep({.num_sequences = 3, .duration = microseconds(5)});
  one->OnStep({.num_sequences = 3, .duration = microseconds(6)});
  two->OnStep({.num_sequences = 1, .duration = microseconds(9)});

  const ModelSums sums = statistics.Of("m", 1);
  EXPECT_EQ(sums.success.count, 2u);
  EXPECT_EQ(sums.success.total, microseconds(150));
  EXPECT_EQ(sums.queue.total, microseconds(30));
  EXPECT_EQ(sums.compute.total, microseconds(120));
  EXPECT_EQ(sums.fail.total, microseconds(7));
  EXPECT_EQ(sums.cancel.total, microseconds(8));
  EXPECT_EQ(sums.steps.count, 2u);
  EXPECT_EQ(sums.steps_by_sequences.at(3).total, microseconds(11));
  EXPECT_EQ(statistics.Of("m", 2).steps.count, 1u);
  EXPECT_EQ(statistics.Of("n", 1).success.count, 0u);
}

}  // namespace
}  // namespace evaserve
