// Encrypted connections: who is let in, and certificates that change while the server runs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include <cmath>
#include <limits>
#include <thread>

#include "absl/time/clock.h"
#include "models/testing/temp_dir.h"
#include "tests/e2e/test_server.h"
#include "tests/e2e/tls_handshake.h"
#include "tests/fakes/certificate_authority.h"

namespace evaserve {
namespace {

constexpr absl::Duration kTlsPatience = absl::Seconds(10);
const CertificateRequest kExpired{.ends_in = std::chrono::seconds(-60)};

// Files that a server and its clients read.
class TlsTest : public testing::Test {
 protected:
  TlsTest() { SetServer(authority_.Issue()); }

  std::string FileWith(const std::string& name, const std::string& text) {
    WriteFile(directory_.path() / name, text);
    return directory_.path() / name;
  }

  void SetServer(const Identity& identity) {
    FileWith("server.pem", identity.cert);
    FileWith("server.key", identity.key);
  }

  // Of a server that looks at its files all the time.
  Config ServerConfig() const {
    Config config;
    config.tls = {.cert = directory_.path() / "server.pem",
                  .key = directory_.path() / "server.key"};
    config.credentials_reload = std::chrono::milliseconds(10);
    return config;
  }

  // Of one that also asks for certificates of `authority_`.
  Config MutualConfig() {
    Config config = ServerConfig();
    config.tls.client_ca = FileWith("clients.pem", authority_.certificate());
    return config;
  }

  ConnectionOptions Trusting(const CertificateAuthority& authority) {
    return {.tls = true, .ca_file = FileWith("ca.pem", authority.certificate())};
  }

  // Who trusts `authority_`, and shows `identity`.
  ConnectionOptions Showing(const Identity& identity) {
    ConnectionOptions options = Trusting(authority_);
    options.cert_file = FileWith("client.pem", identity.cert);
    options.key_file = FileWith("client.key", identity.key);
    return options;
  }

  static absl::Status Call(Client& client) {
    return client.ListModels({.deadline = absl::Now() + kTlsPatience}).status();
  }

  static absl::Status CallOnce(const TestServer& server, const ConnectionOptions& options) {
    auto client = Client::Connect(server.target(), options);
    return client.ok() ? Call(*client) : client.status();
  }

  // Whether new connections see this certificate, at the latest in a while.
  static bool WaitForSerial(TestServer& server, const std::string& serial) {
    const absl::Time deadline = absl::Now() + kTlsPatience;
    while (absl::Now() < deadline) {
      if (ShakeHands(server.server().grpc_port()).serial == serial) return true;
      std::this_thread::yield();
    }
    return false;
  }

  TempDir directory_;
  CertificateAuthority authority_;
};

TEST_F(TlsTest, ServesThoseWhoTrustItsAuthority) {
  TestServer server(ServerConfig());
  const CertificateAuthority stranger;

  EXPECT_TRUE(CallOnce(server, Trusting(authority_)).ok());
  EXPECT_TRUE(absl::IsUnavailable(CallOnce(server, Trusting(stranger))));
  EXPECT_TRUE(absl::IsUnavailable(CallOnce(server, {.tls = true})));
  EXPECT_FALSE(CallOnce(server, {.tls = false}).ok());
}

TEST_F(TlsTest, ClientsNoticeAWrongName) {
  SetServer(authority_.Issue({.names = "DNS:elsewhere.example"}));
  TestServer server(ServerConfig());

  EXPECT_TRUE(absl::IsUnavailable(CallOnce(server, Trusting(authority_))));
}

TEST_F(TlsTest, ClientsNoticeAnExpiredCertificate) {
  SetServer(authority_.Issue(kExpired));
  TestServer server(ServerConfig());

  EXPECT_TRUE(absl::IsUnavailable(CallOnce(server, Trusting(authority_))));
}

TEST_F(TlsTest, SpeaksTls12AndNewerOnly) {
  TestServer server(ServerConfig());
  const int port = server.server().grpc_port();

  EXPECT_EQ(ShakeHands(port).protocol, "TLSv1.3");
  EXPECT_EQ(ShakeHands(port, TLS1_2_VERSION).protocol, "TLSv1.2");
  EXPECT_EQ(ShakeHands(port, TLS1_1_VERSION).protocol, "");
  EXPECT_EQ(ShakeHands(port, TLS1_VERSION).protocol, "");
}

TEST_F(TlsTest, AClientNeedsACertificateOfTheRightAuthority) {
  TestServer server(MutualConfig());
  const CertificateAuthority stranger;

  EXPECT_TRUE(CallOnce(server, Showing(authority_.Issue())).ok());
  EXPECT_FALSE(CallOnce(server, Trusting(authority_)).ok());
  EXPECT_FALSE(CallOnce(server, Showing(stranger.Issue())).ok());
  EXPECT_FALSE(CallOnce(server, Showing(authority_.Issue(kExpired))).ok());
}

TEST_F(TlsTest, NewConnectionsSeeANewCertificateAndOldOnesLiveOn) {
  TestServer server(ServerConfig());
  auto old_client = Client::Connect(server.target(), Trusting(authority_));
  ASSERT_TRUE(old_client.ok()) << old_client.status();
  GenerateStream stream = old_client->Generate(EndlessRequest());
  ASSERT_TRUE(stream.Next().has_value());

  const CertificateAuthority successor;
  const Identity renewed = successor.Issue();
  SetServer(renewed);

  ASSERT_TRUE(WaitForSerial(server, renewed.serial));
  EXPECT_TRUE(CallOnce(server, Trusting(successor)).ok());
  EXPECT_FALSE(CallOnce(server, Trusting(authority_)).ok());
  // The connection of before: its client does not trust the successor.
  EXPECT_TRUE(stream.Next().has_value());
  EXPECT_TRUE(Call(*old_client).ok());
}

TEST_F(TlsTest, BrokenFilesKeepTheCertificateUntilTheyAreWhole) {
  const Identity first = authority_.Issue();
  SetServer(first);
  TestServer server(ServerConfig());
  const Identity renewed = authority_.Issue();

  FileWith("server.key", "garbage");
  FileWith("server.pem", renewed.cert);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(ShakeHands(server.server().grpc_port()).serial, first.serial);
    absl::SleepFor(absl::Milliseconds(2));  // the server looks every 10 ms
  }
  EXPECT_TRUE(CallOnce(server, Trusting(authority_)).ok());

  FileWith("server.key", renewed.key);
  EXPECT_TRUE(WaitForSerial(server, renewed.serial));
}

TEST_F(TlsTest, TheAuthorityOfClientsMayChangeToo) {
  TestServer server(MutualConfig());
  const CertificateAuthority successor;
  const Identity renewed = authority_.Issue();

  FileWith("clients.pem", successor.certificate());
  SetServer(renewed);  // after it, so that this certificate tells that both have been read
  ASSERT_TRUE(WaitForSerial(server, renewed.serial));

  EXPECT_TRUE(CallOnce(server, Showing(successor.Issue())).ok());
  EXPECT_FALSE(CallOnce(server, Showing(authority_.Issue())).ok());
}

// Seconds from now to when the metrics say that the certificate of `file` ends.
double SecondsLeft(const TestServer& server, const std::string& file) {
  const std::string name = "evaserve_certificate_not_after_seconds{file=\"" + file + "\"} ";
  const std::string page = server.HttpGet("/metrics");
  const size_t at = page.find(name);
  if (at == std::string::npos) return std::numeric_limits<double>::quiet_NaN();
  return std::stod(page.substr(at + name.size())) -
         absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch());
}

TEST_F(TlsTest, TheMetricsTellWhenTheCertificatesInUseEnd) {
  const Config config = MutualConfig();
  FileWith("clients.pem", authority_.Issue({.ends_in = std::chrono::hours(5)}).cert);
  TestServer server(config);
  EXPECT_NEAR(SecondsLeft(server, "cert"), 3600, 60);
  EXPECT_NEAR(SecondsLeft(server, "client_ca"), 5 * 3600, 60);

  SetServer(authority_.Issue({.ends_in = std::chrono::hours(2)}));

  const absl::Time deadline = absl::Now() + kTlsPatience;
  while (SecondsLeft(server, "cert") < 5400 && absl::Now() < deadline) std::this_thread::yield();
  EXPECT_NEAR(SecondsLeft(server, "cert"), 2 * 3600, 60);
}

TEST_F(TlsTest, TheMetricsTellOfNoCertificatesThatThereAreNot) {
  Config config = ServerConfig();
  config.credentials_reload = std::chrono::hours(1);
  const TestServer server(config);

  EXPECT_NEAR(SecondsLeft(server, "cert"), 3600, 60);
  EXPECT_TRUE(std::isnan(SecondsLeft(server, "client_ca")));
  EXPECT_EQ(SharedServer().HttpGet("/metrics").find("evaserve_certificate"), std::string::npos);
}

}  // namespace
}  // namespace evaserve
