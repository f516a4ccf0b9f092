#include "server/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "models/testing/temp_dir.h"
#include "tests/fakes/certificate_authority.h"

namespace evaserve {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

ParsedConfig Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "evaserve");
  return ParseConfig(static_cast<int>(arguments.size()), arguments.data());
}

// Sets an environment variable for the length of a test.
class ScopedEnvironment {
 public:
  ScopedEnvironment(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
  ~ScopedEnvironment() { unsetenv(name_); }

 private:
  const char* const name_;
};

TEST(ConfigTest, AModelIsNamedAfterItsDirectory) {
  const auto parsed = Parse({"--model", "some/where/evabyte/"});

  ASSERT_TRUE(parsed.config) << parsed.message;
  ASSERT_EQ(parsed.config->models.size(), 1u);
  EXPECT_EQ(parsed.config->models[0].name, "evabyte");
  EXPECT_EQ(parsed.config->address, "0.0.0.0:8001");
  EXPECT_FALSE(parsed.config->dtype.has_value());
}

TEST(ConfigTest, AModelHasItsNameWithoutAWorkingDirectory) {
  const std::filesystem::path before = std::filesystem::current_path();
  {
    const TempDir gone;
    std::filesystem::current_path(gone.path());
  }
  const auto parsed = Parse({"--model", "evabyte"});
  std::filesystem::current_path(before);

  ASSERT_TRUE(parsed.config) << parsed.message;
  EXPECT_EQ(parsed.config->models[0].name, "evabyte");
}

TEST(ConfigTest, AModelMayBeGivenAName) {
  const auto parsed = Parse({"--model", "a=/x", "--model", "b=/y=z"});

  ASSERT_TRUE(parsed.config) << parsed.message;
  ASSERT_EQ(parsed.config->models.size(), 2u);
  EXPECT_EQ(parsed.config->models[0].name, "a");
  EXPECT_EQ(parsed.config->models[1].directory, "/y=z");
}

TEST(ConfigTest, TakesEveryOption) {
  const auto parsed =
      Parse({"--model=m=/x", "--address=127.0.0.1:1", "--metrics-address=off", "--threads=3",
             "--device=cuda:1", "--dtype=bfloat16", "--state-memory-mb=5", "--max-batch-tokens=6",
             "--max-connection-age-s=11", "--max-connection-age-grace-s=12", "--max-running=7",
             "--max-waiting=8", "--max-message-mb=9", "--drain-timeout-s=10", "--log-level=debug",
             "--log-format=json", "--overload-status=unavailable", "--strict-readiness=false"});

  ASSERT_TRUE(parsed.config) << parsed.message;
  const Config& config = *parsed.config;
  EXPECT_EQ(config.address, "127.0.0.1:1");
  EXPECT_EQ(config.metrics_address, "");
  EXPECT_EQ(config.threads, 3);
  EXPECT_EQ(Name(config.device), "cuda:1");
  EXPECT_EQ(config.dtype, DType::kBFloat16);
  EXPECT_EQ(config.state_memory_mb, 5);
  EXPECT_EQ(config.max_batch_tokens, 6);
  EXPECT_EQ(config.max_connection_age, std::chrono::seconds(11));
  EXPECT_EQ(config.max_connection_age_grace, std::chrono::seconds(12));
  EXPECT_EQ(config.max_running, 7);
  EXPECT_EQ(config.max_waiting, 8);
  EXPECT_EQ(config.max_message_mb, 9);
  EXPECT_EQ(config.drain_timeout, std::chrono::seconds(10));
  EXPECT_EQ(config.log_level, spdlog::level::debug);
  EXPECT_EQ(config.log_format, LogFormat::kJson);
  EXPECT_EQ(config.overload_status, OverloadStatus::kUnavailable);
  EXPECT_FALSE(config.strict_readiness);
}

TEST(ConfigTest, TheEnvironmentGivesWhatTheCommandLineDoesNot) {
  const ScopedEnvironment model("EVASERVE_MODEL", "a=/x,b=/y");
  const ScopedEnvironment running("EVASERVE_MAX_RUNNING", "5");
  const ScopedEnvironment waiting("EVASERVE_MAX_WAITING", "6");

  const auto parsed = Parse({"--max-waiting", "7"});

  ASSERT_TRUE(parsed.config) << parsed.message;
  EXPECT_EQ(parsed.config->models.size(), 2u);
  EXPECT_EQ(parsed.config->max_running, 5);
  EXPECT_EQ(parsed.config->max_waiting, 7);
}

class ConfigFileTest : public ::testing::Test {
 protected:
  // In CTest's working directory, by the test's name: tests run side by side.
  ConfigFileTest()
      : path_(std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()) +
              ".config_test.toml") {}
  ~ConfigFileTest() override { std::filesystem::remove(path_); }

  void Write(const char* text) { std::ofstream(path_) << text; }

  const std::string path_;
};

TEST_F(ConfigFileTest, GivesWhatTheCommandLineDoesNot) {
  Write("model = [\"a=/x\", \"b=/y\"]\nmax-running = 5\nmax-waiting = 6\n");

  const auto parsed = Parse({"--config", path_.c_str(), "--max-waiting", "7"});

  ASSERT_TRUE(parsed.config) << parsed.message;
  EXPECT_EQ(parsed.config->models.size(), 2u);
  EXPECT_EQ(parsed.config->max_running, 5);
  EXPECT_EQ(parsed.config->max_waiting, 7);
}

TEST_F(ConfigFileTest, GoesBeforeTheEnvironment) {
  Write("max-running = 5\n");
  const ScopedEnvironment running("EVASERVE_MAX_RUNNING", "6");

  const auto parsed = Parse({"--config", path_.c_str(), "--model=m=/x"});

  ASSERT_TRUE(parsed.config) << parsed.message;
  EXPECT_EQ(parsed.config->max_running, 5);
}

TEST_F(ConfigFileTest, MayBeNamedByTheEnvironment) {
  Write("max-running = 5\n");
  const ScopedEnvironment config("EVASERVE_CONFIG", path_.c_str());

  const auto parsed = Parse({"--model=m=/x"});

  ASSERT_TRUE(parsed.config) << parsed.message;
  EXPECT_EQ(parsed.config->max_running, 5);
}

TEST_F(ConfigFileTest, OfTheEnvironmentMustBeThere) {
  const ScopedEnvironment config("EVASERVE_CONFIG", "/nowhere.toml");

  EXPECT_EQ(Parse({"--model=m=/x"}).exit_code, 2);
}

TEST_F(ConfigFileTest, ThatIsMissingIsNamedWithItsOption) {
  const auto parsed = Parse({"--config", "/nowhere.toml", "--model=m=/x"});

  EXPECT_EQ(parsed.exit_code, 2);
  EXPECT_EQ(parsed.message, "evaserve: --config: /nowhere.toml: No such file or directory\n");
}

TEST_F(ConfigFileTest, ASectionInItIsAnErrorWithItsLine) {
  Write("# all\n[server]\nmax-running = 5\n");

  const auto parsed = Parse({"--config", path_.c_str(), "--model=m=/x"});

  EXPECT_EQ(parsed.exit_code, 2);
  EXPECT_THAT(parsed.message, HasSubstr(path_ + ":2: got the section '[server]', allowed are"));
}

TEST_F(ConfigFileTest, AnUnknownNameInItIsAnErrorWithItsLine) {
  Write("# sizes\n\nshoe-size = 43\n");

  const auto parsed = Parse({"--config", path_.c_str(), "--model=m=/x"});

  EXPECT_EQ(parsed.exit_code, 2);
  EXPECT_THAT(parsed.message, HasSubstr(path_ + ":3: 'shoe-size'"));
}

TEST_F(ConfigFileTest, ABadValueInItIsAnErrorWithItsLine) {
  Write("max-waiting = 6\nmax-running = many\n");

  const auto parsed = Parse({"--config", path_.c_str(), "--model=m=/x"});

  EXPECT_EQ(parsed.exit_code, 2);
  EXPECT_THAT(parsed.message, HasSubstr(path_ + ":2: --max-running: "));
}

TEST_F(ConfigFileTest, IsNotBlamedForTheCommandLine) {
  Write("max-running = 6\n");

  const auto parsed = Parse({"--config", path_.c_str(), "--model=m=/x", "--max-running=many"});

  EXPECT_THAT(parsed.message, StartsWith("evaserve: --max-running: "));
}

struct BadArgument {
  const char* test;
  std::vector<const char*> arguments;
  std::vector<const char*> parts;  // of the message
};

class BadArgumentTest : public ::testing::TestWithParam<BadArgument> {};

TEST_P(BadArgumentTest, IsOneLineThatNamesTheOptionAndWhatIsAllowed) {
  const auto parsed = Parse(GetParam().arguments);

  EXPECT_FALSE(parsed.config);
  EXPECT_EQ(parsed.exit_code, 2);
  for (const char* part : GetParam().parts) EXPECT_THAT(parsed.message, HasSubstr(part));
  EXPECT_EQ(parsed.message.find('\n'), parsed.message.size() - 1);
}

const BadArgument kBadArguments[] = {
    {"NoModel", {}, {"--model"}},
    {"EmptyModel", {"--model", ""}, {"--model", "NAME=DIR"}},
    {"EmptyName", {"--model", "=/x"}, {"--model", "NAME=DIR"}},
    {"EmptyDirectory", {"--model", "a="}, {"--model", "NAME=DIR"}},
    {"SameName", {"--model", "/x/a", "--model", "/y/a"}, {"--model", "'a'"}},
    {"Threads", {"--model=m", "--threads=-1"}, {"--threads", "0", "1024"}},
    {"Device", {"--model=m", "--device=tpu"}, {"--device", "tpu", "cuda:N"}},
    {"Dtype", {"--model=m", "--dtype=int4"}, {"--dtype", "int4", "bfloat16"}},
    {"NoMemory", {"--model=m", "--state-memory-mb=0"}, {"--state-memory-mb", "1"}},
    {"NotANumber", {"--model=m", "--max-running=many"}, {"--max-running", "many"}},
    {"Address", {"--model=m", "--address=8001"}, {"--address: got '8001'", "HOST:PORT"}},
    {"MetricsAddress", {"--model=m", "--metrics-address=a:b"}, {"--metrics-address: got 'a:b'"}},
    {"MetricsAddressIpv6",
     {"--model=m", "--metrics-address=[::]:8002"},
     {"--metrics-address: got '[::]:8002'", "IPv4"}},
    {"Huge", {"--model=m", "--max-message-mb=4096"}, {"--max-message-mb", "2047"}},
    {"LogLevel", {"--model=m", "--log-level=loud"}, {"--log-level", "loud", "info"}},
    {"LogFormat", {"--model=m", "--log-format=xml"}, {"--log-format", "xml", "json"}},
    {"NothingToPoll",
     {"--model=m", "--model-control-mode=poll"},
     {"--model-control-mode: ", "--model-repository"}},
    {"NothingToLoadFrom",
     {"--model=m", "--model-control-mode=explicit", "--load-model=m"},
     {"--load-model: ", "--model-repository"}},
    {"LoadsAllAnyway",
     {"--model-repository=.", "--load-model=m"},
     {"--load-model: ", "--model-control-mode=explicit"}},
    {"Readiness", {"--model=m", "--strict-readiness=perhaps"}, {"--strict-readiness", "perhaps"}},
    {"Unknown", {"--model=m", "--shoe-size=43"}, {"--shoe-size"}},
    {"NoFile", {"--model=m", "--config=/nowhere.toml"}, {"/nowhere.toml"}},
};

INSTANTIATE_TEST_SUITE_P(All, BadArgumentTest, ::testing::ValuesIn(kBadArguments),
                         [](const auto& info) { return std::string(info.param.test); });

// Certificates and a list of tokens that can be used.
class SecurityConfigTest : public ::testing::Test {
 protected:
  SecurityConfigTest() {
    const CertificateAuthority authority;
    const Identity server = authority.Issue();
    WriteFile(cert_, server.cert);
    WriteFile(key_, server.key);
    WriteFile(client_ca_, authority.certificate());
    WriteFile(tokens_, "somebody " + std::string(64, 'a') + " *\n");
  }

  // The message of a refusal.
  static std::string Refusal(std::vector<const char*> arguments) {
    arguments.push_back("--model=m=/x");
    const auto parsed = Parse(arguments);
    EXPECT_EQ(parsed.exit_code, 2);
    EXPECT_EQ(parsed.message.find('\n'), parsed.message.size() - 1);
    return parsed.message;
  }

  TempDir directory_;
  const std::string cert_ = directory_.path() / "cert.pem";
  const std::string key_ = directory_.path() / "key.pem";
  const std::string client_ca_ = directory_.path() / "ca.pem";
  const std::string tokens_ = directory_.path() / "tokens";
};

TEST_F(SecurityConfigTest, IsOffByDefault) {
  const auto parsed = Parse({"--model=m=/x"});

  ASSERT_TRUE(parsed.config) << parsed.message;
  EXPECT_TRUE(parsed.config->tls.cert.empty());
  EXPECT_TRUE(parsed.config->auth_tokens.empty());
  EXPECT_FALSE(parsed.config->auth_without_tls);
}

TEST_F(SecurityConfigTest, TakesFilesThatCanBeUsed) {
  const auto parsed = Parse({"--model=m=/x", "--tls-cert", cert_.c_str(), "--tls-key", key_.c_str(),
                             "--tls-client-ca", client_ca_.c_str(), "--auth-tokens",
                             tokens_.c_str(), "--credentials-reload-s=3"});

  ASSERT_TRUE(parsed.config) << parsed.message;
  EXPECT_EQ(parsed.config->tls.cert, cert_);
  EXPECT_EQ(parsed.config->tls.key, key_);
  EXPECT_EQ(parsed.config->tls.client_ca, client_ca_);
  EXPECT_EQ(parsed.config->auth_tokens, tokens_);
  EXPECT_EQ(parsed.config->credentials_reload, std::chrono::seconds(3));
}

TEST_F(SecurityConfigTest, ACertificateNeedsItsKeyAndAKeyItsCertificate) {
  EXPECT_THAT(Refusal({"--tls-cert", cert_.c_str()}), HasSubstr("--tls-cert: "));
  EXPECT_THAT(Refusal({"--tls-key", key_.c_str()}), HasSubstr("--tls-key: "));
  EXPECT_THAT(Refusal({"--tls-client-ca", client_ca_.c_str()}), HasSubstr("--tls-client-ca: "));
}

TEST_F(SecurityConfigTest, TheOptionOfABrokenFileIsNamed) {
  EXPECT_THAT(Refusal({"--tls-cert", tokens_.c_str(), "--tls-key", key_.c_str()}),
              HasSubstr("--tls-cert: " + tokens_ + ": "));
  EXPECT_THAT(Refusal({"--tls-cert", cert_.c_str(), "--tls-key", tokens_.c_str()}),
              HasSubstr("--tls-key: " + tokens_ + ": "));
  EXPECT_THAT(Refusal({"--tls-cert", cert_.c_str(), "--tls-key", key_.c_str(), "--tls-client-ca",
                       tokens_.c_str()}),
              HasSubstr("--tls-client-ca: " + tokens_ + ": "));
  EXPECT_THAT(Refusal({"--auth-tokens", cert_.c_str(), "--auth-without-tls"}),
              HasSubstr("--auth-tokens: " + cert_ + ":1: "));
}

TEST_F(SecurityConfigTest, TokensNeedTlsUnlessTheyStayHereOrSomebodySaysSo) {
  auto takes = [this](std::vector<const char*> arguments) {
    arguments.insert(arguments.end(), {"--model=m=/x", "--auth-tokens", tokens_.c_str()});
    return Parse(arguments).config.has_value();
  };

  EXPECT_TRUE(takes({"--tls-cert", cert_.c_str(), "--tls-key", key_.c_str()}));
  EXPECT_TRUE(takes({"--auth-without-tls"}));
  for (const char* here : {"--address=127.0.0.1:1", "--address=127.3.2.1:1", "--address=[::1]:1",
                           "--address=localhost:1"}) {
    EXPECT_TRUE(takes({here})) << here;
  }
  for (const char* anywhere :
       {"--address=0.0.0.0:1", "--address=[::]:1", "--address=10.0.0.1:1",
        "--address=127.example.com:1", "--address=localhost.example.com:1"}) {
    EXPECT_FALSE(takes({anywhere})) << anywhere;
  }
  EXPECT_THAT(Refusal({"--auth-tokens", tokens_.c_str()}), HasSubstr("--auth-without-tls"));
}

TEST(ConfigTest, ATimeIsANumberAndNotRoundedToNoLimit) {
  const auto parsed = Parse({"--model=m=/x", "--max-queue-s=0.0001", "--max-request-s=0",
                             "--max-piece-wait-s=1.5", "--step-timeout-s=0.57"});

  ASSERT_TRUE(parsed.config) << parsed.message;
  EXPECT_EQ(parsed.config->max_queue_time, std::chrono::milliseconds(1));
  EXPECT_EQ(parsed.config->max_request_time, std::chrono::milliseconds(0));
  EXPECT_EQ(parsed.config->max_piece_wait, std::chrono::milliseconds(1500));
  EXPECT_EQ(parsed.config->step_timeout, std::chrono::milliseconds(570));
  for (const char* value : {"nan", "-nan", "inf", "1e999"}) {
    const std::string argument = std::string("--max-queue-s=") + value;
    const auto refused = Parse({"--model=m=/x", argument.c_str()});
    EXPECT_FALSE(refused.config) << value;
    EXPECT_THAT(refused.message, HasSubstr("--max-queue-s: ")) << value;
  }
}

TEST(ConfigTest, HelpAndVersionEndWellWithoutAModel) {
  const auto help = Parse({"--help"});
  const auto version = Parse({"--version"});

  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.message, HasSubstr("--max-batch-tokens"));
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_THAT(version.message, HasSubstr("evaserve 0."));
}

}  // namespace
}  // namespace evaserve
