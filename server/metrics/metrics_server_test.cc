#include "server/metrics/metrics_server.h"

#include <civetweb.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace evaserve {
namespace {

using ::testing::HasSubstr;

// Of the probe in deploy/helm, without whose answers Kubernetes ends the server.
constexpr absl::Duration kLivenessTimeout = absl::Seconds(5);

MetricsPages Pages(const absl::Status& ready = absl::OkStatus()) {
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

// Connections to a server that say nothing, or have been answered and are kept.
class IdleConnections {
 public:
  IdleConnections(const MetricsServer& server, int count, std::string_view said) {
    sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(server.port())};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < count; ++i) {
      const int file = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      files_.push_back(file);
      EXPECT_EQ(connect(file, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
      EXPECT_EQ(send(file, said.data(), said.size(), MSG_NOSIGNAL), std::ssize(said));
    }
  }
  ~IdleConnections() {
    for (const int file : files_) close(file);
  }

 private:
  std::vector<int> files_;
};

class IdleConnectionsTest : public ::testing::TestWithParam<const char*> {};

TEST_P(IdleConnectionsTest, DoNotKeepAProbeWaiting) {
  const auto server = MetricsServer::Start("127.0.0.1:0", Pages());
  ASSERT_TRUE(server.ok()) << server.status();
  const IdleConnections idle(**server, 100, GetParam());
  const absl::Time begin = absl::Now();

  EXPECT_EQ(Ask(**server, "GET", "/healthz"), "200\nok\n");

  EXPECT_LT(absl::Now() - begin, kLivenessTimeout);
}

INSTANTIATE_TEST_SUITE_P(Said, IdleConnectionsTest,
                         ::testing::Values("", "GET /metr",
                                           "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"));

TEST(MetricsServerTest, APortInUseIsAnError) {
  const auto first = MetricsServer::Start("127.0.0.1:0", Pages());
  ASSERT_TRUE(first.ok()) << first.status();
  const std::string taken = absl::StrCat("127.0.0.1:", (*first)->port());

  const absl::Status status = MetricsServer::Start(taken, Pages()).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(taken));
  EXPECT_THAT(std::string(status.message()), HasSubstr("Address already in use"));
}

TEST(MetricsServerTest, SaysThatItKnowsNoIpv6) {
  if (mg_check_feature(MG_FEATURES_IPV6) != 0) GTEST_SKIP() << "it does";
  for (const char* address : {"[::]:0", "[::1]:0"}) {
    const absl::Status status = MetricsServer::Start(address, Pages()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(address));
    EXPECT_THAT(std::string(status.message()), HasSubstr("IPv4"));
  }
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
