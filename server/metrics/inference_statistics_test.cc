#include "server/metrics/inference_statistics.h"

#include <gtest/gtest.h>

#include "tests/fakes/recording_observer.h"

namespace evaserve {
namespace {

using std::chrono::microseconds;

TEST(InferenceStatisticsTest, AddsUpByModelAndVersion) {
  InferenceStatistics statistics;
  const auto one = statistics.MakeObserver("m", 1, std::make_unique<RecordingObserver>());
  const auto two = statistics.MakeObserver("m", 2, std::make_unique<RecordingObserver>());

  statistics.Add("m", 1,
                 {.ok = true,
                  .duration = microseconds(105),
                  .queue = microseconds(10),
                  .engine = microseconds(100),
                  .rows = 64});
  statistics.Add("m", 1,
                 {.ok = true,
                  .duration = microseconds(55),
                  .queue = microseconds(20),
                  .engine = microseconds(50),
                  .rows = 1});
  statistics.Add("m", 1, {.ok = false, .duration = microseconds(7), .rows = 3});
  one->OnStep({.num_sequences = 3, .rows = 64, .duration = microseconds(5)});
  one->OnStep({.num_sequences = 1, .rows = 64, .duration = microseconds(6)});
  two->OnStep({.num_sequences = 1, .rows = 1, .duration = microseconds(9)});

  const ModelSums sums = statistics.Of("m", 1);
  EXPECT_EQ(sums.success.count, 2u);
  EXPECT_EQ(sums.success.total, microseconds(160));
  EXPECT_EQ(sums.inferences, 65u);
  EXPECT_EQ(sums.queue.total, microseconds(30));
  EXPECT_EQ(sums.compute.total, microseconds(120));
  EXPECT_EQ(sums.fail.count, 1u);
  EXPECT_EQ(sums.fail.total, microseconds(7));
  EXPECT_EQ(sums.steps.count, 2u);
  EXPECT_EQ(sums.steps_by_rows.at(64).total, microseconds(11));
  EXPECT_EQ(statistics.Of("m", 2).steps.count, 1u);
  EXPECT_EQ(statistics.Of("n", 1).success.count, 0u);
}

}  // namespace
}  // namespace evaserve
