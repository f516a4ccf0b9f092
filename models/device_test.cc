#include "models/device.h"

#include "gtest/gtest.h"
#include "models/testing/status_matchers.h"

namespace evaserve {
namespace {

TEST(DeviceTest, ReadsWhatItWrites) {
  for (const char* name : {"auto", "cpu", "cuda:0", "cuda:12"}) {
    const auto device = ParseDevice(name);
    ASSERT_TRUE(device.ok()) << device.status();
    EXPECT_EQ(Name(*device), name);
  }
}

TEST(DeviceTest, CudaIsTheFirstDevice) { EXPECT_EQ(Name(*ParseDevice("cuda")), "cuda:0"); }

TEST(DeviceTest, RefusesEverythingElse) {
  for (const char* name : {"", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU"}) {
    EXPECT_THAT(ParseDevice(name).status(),
                IsError(absl::StatusCode::kInvalidArgument, name, "auto, cpu, cuda, cuda:N"));
  }
}

}  // namespace
}  // namespace evaserve
