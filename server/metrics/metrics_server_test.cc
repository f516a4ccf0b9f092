#include "server/metrics/metrics_server.h"

#include <civetweb.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

using ::testing::HasSubstr;

MetricsPages Pages(absl::Status ready = absl::OkStatus()) {
  return {.metrics = [] { return "metric 1\n"; },
          .healthy = [] { return absl::OkStatus(); },
          .ready = [ready] { return ready; }};
}

// The answer's code, a line feed and its body.
std::string Ask(const MetricsServer& server, const char* method, const char* path) {
  char error[256] = "";
  mg_connection* connection = mg_download("127.0.0.1", server.port(), 0, error, sizeof(error),
                                          "%s %s HTTP/1.0\r\n\r\n", method, path);
  if (connection == nullptr) return error;
  std::string answer = absl::StrCat(mg_get_response_info(connection)->status_code, "\n");
  char buffer[1024];
  for (int n; (n = mg_read(connection, buffer, sizeof(buffer))) > 0;) answer.append(buffer, n);
  mg_close_connection(connection);
  return answer;
}

TEST(MetricsServerTest, ServesItsPages) {
  const auto server = MetricsServer::Start("127.0.0.1:0", Pages());
  ASSERT_TRUE(server.ok()) << server.status();

  EXPECT_EQ(Ask(**server, "GET", "/metrics"), "200\nmetric 1\n");
  EXPECT_EQ(Ask(**server, "GET", "/healthz"), "200\nok\n");
  EXPECT_EQ(Ask(**server, "GET", "/readyz"), "200\nok\n");
}

TEST(MetricsServerTest, SaysWhyItIsNotReady) {
  const auto server = MetricsServer::Start("127.0.0.1:0", Pages(absl::UnavailableError("loading")));
  ASSERT_TRUE(server.ok()) << server.status();

  EXPECT_EQ(Ask(**server, "GET", "/readyz"), "503\nloading\n");
  EXPECT_EQ(Ask(**server, "GET", "/healthz"), "200\nok\n");
}

TEST(MetricsServerTest, ServesNothingElse) {
  const auto server = MetricsServer::Start("127.0.0.1:0", Pages());
  ASSERT_TRUE(server.ok()) << server.status();

  EXPECT_THAT(Ask(**server, "GET", "/"), HasSubstr("404\n"));
  EXPECT_THAT(Ask(**server, "GET", "/../../etc/passwd"), HasSubstr("404\n"));
  EXPECT_THAT(Ask(**server, "POST", "/metrics"), HasSubstr("405\n"));
}

TEST(MetricsServerTest, APortInUseIsAnError) {
  const auto first = MetricsServer::Start("127.0.0.1:0", Pages());
  ASSERT_TRUE(first.ok()) << first.status();
  const std::string taken = absl::StrCat("127.0.0.1:", (*first)->port());

  const absl::Status status = MetricsServer::Start(taken, Pages()).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(taken));
}

TEST(MetricsServerTest, RefusesAnAddressWithoutAPort) {
  for (const char* address : {"127.0.0.1", "127.0.0.1:", ":80", "127.0.0.1:70000", "127.0.0.1:x"}) {
    const absl::Status status = MetricsServer::Start(address, Pages()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << address;
    EXPECT_THAT(std::string(status.message()), HasSubstr(address));
  }
}

}  // namespace
}  // namespace evaserve
