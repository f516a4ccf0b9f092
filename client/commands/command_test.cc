#include "client/commands/command.h"

#include <gtest/gtest.h>

namespace evaserve {
namespace {

TEST(ReadInputTest, SaysWhyAPathCannotBeRead) {
  const auto too_long = ReadInput(std::string(10'000, 'x'));
  EXPECT_EQ(too_long.status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(std::string(too_long.status().message()).ends_with("xxx: File name too long"));
  EXPECT_NE(ReadInput(testing::TempDir()).status().message().find("it is a directory"),
            std::string::npos);
}

}  // namespace
}  // namespace evaserve
