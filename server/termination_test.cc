#include "server/termination.h"

#include <gtest/gtest.h>
#include <unistd.h>

namespace evaserve {
namespace {

TEST(TerminationDeathTest, EndsAProcessThatHangs) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");

  EXPECT_EXIT(
      {
        Termination termination;
        Termination::EndWithin(std::chrono::seconds(1));
        for (;;) pause();
      },
      testing::ExitedWithCode(1), "");
}

}  // namespace
}  // namespace evaserve
