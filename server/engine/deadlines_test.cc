#include "server/engine/deadlines.h"

#include <gtest/gtest.h>

namespace evaserve {
namespace {

using std::chrono::seconds;

const TimePoint kNow{std::chrono::hours(1)};

TEST(DeadlinesTest, PassInTheirOrder) {
  Deadlines deadlines;
  deadlines.Set(1, kNow + seconds(2));
  deadlines.Set(2, kNow + seconds(1));

  EXPECT_EQ(deadlines.first(), kNow + seconds(1));
  EXPECT_EQ(deadlines.TakePassed(kNow), std::nullopt);
  EXPECT_EQ(deadlines.TakePassed(kNow + seconds(2)), 2u);
  EXPECT_EQ(deadlines.TakePassed(kNow + seconds(2)), 1u);
  EXPECT_EQ(deadlines.TakePassed(kNow + seconds(2)), std::nullopt);
}

TEST(DeadlinesTest, NothingIsLeftOfOneThatIsErasedOrSetAnew) {
  Deadlines deadlines;
  deadlines.Set(1, kNow);
  deadlines.Set(2, kNow);
  deadlines.Set(2, kNow + seconds(1));

  deadlines.Erase(1);

  EXPECT_EQ(deadlines.first(), kNow + seconds(1));
  EXPECT_EQ(deadlines.TakePassed(kNow + seconds(1)), 2u);
  EXPECT_EQ(deadlines.first(), TimePoint::max());
}

TEST(DeadlinesTest, TheEndOfTimeIsNone) {
  Deadlines deadlines;
  deadlines.Set(1, kNow);
  deadlines.Set(1, TimePoint::max());

  EXPECT_EQ(deadlines.TakePassed(TimePoint::max()), std::nullopt);
}

}  // namespace
}  // namespace evaserve
