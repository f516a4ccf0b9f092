#include "server/address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

using ::testing::HasSubstr;

struct Good {
  const char* text;
  const char* host;
  int port;
  bool is_any;
};

TEST(ParseAddressTest, TakesHostAndPort) {
  for (const Good& good :
       {Good{"0.0.0.0:8001", "0.0.0.0", 8001, true}, Good{"[::]:0", "::", 0, true},
        Good{"[::1]:65535", "::1", 65535, false}, Good{"localhost:80", "localhost", 80, false}}) {
    const auto address = ParseAddress(good.text);
    ASSERT_TRUE(address.ok()) << address.status();
    EXPECT_EQ(address->host, good.host);
    EXPECT_EQ(address->port, good.port);
    EXPECT_EQ(address->is_any(), good.is_any);
  }
}

TEST(ParseAddressTest, RefusesAllElse) {
  for (const char* text : {"", "8001", ":8001", "host", "host:", "host:-1", "host:65536", "host:x",
                           "[]:1", "::1:8001", "[::1]"}) {
    const absl::Status status = ParseAddress(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat("got '", text, "'")));
  }
}

}  // namespace
}  // namespace evaserve
