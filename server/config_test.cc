#include "server/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace evaserve {
namespace {

using ::testing::HasSubstr;

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
             "--max-running=7", "--max-waiting=8", "--max-message-mb=9", "--drain-timeout-s=10",
             "--log-level=debug", "--log-format=json"});

  ASSERT_TRUE(parsed.config) << parsed.message;
  const Config& config = *parsed.config;
  EXPECT_EQ(config.address, "127.0.0.1:1");
  EXPECT_EQ(config.metrics_address, "");
  EXPECT_EQ(config.threads, 3);
  EXPECT_EQ(Name(config.device), "cuda:1");
  EXPECT_EQ(config.dtype, DType::kBFloat16);
  EXPECT_EQ(config.state_memory_mb, 5);
  EXPECT_EQ(config.max_batch_tokens, 6);
  EXPECT_EQ(config.max_running, 7);
  EXPECT_EQ(config.max_waiting, 8);
  EXPECT_EQ(config.max_message_mb, 9);
  EXPECT_EQ(config.drain_timeout, std::chrono::seconds(10));
  EXPECT_EQ(config.log_level, spdlog::level::debug);
  EXPECT_EQ(config.log_format, LogFormat::kJson);
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

TEST_F(ConfigFileTest, AnUnknownNameInItIsAnError) {
  Write("shoe-size = 43\n");

  const auto parsed = Parse({"--config", path_.c_str(), "--model=m=/x"});

  EXPECT_EQ(parsed.exit_code, 2);
  EXPECT_THAT(parsed.message, HasSubstr("shoe-size"));
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
    {"Huge", {"--model=m", "--max-message-mb=4096"}, {"--max-message-mb", "2047"}},
    {"LogLevel", {"--model=m", "--log-level=loud"}, {"--log-level", "loud", "info"}},
    {"LogFormat", {"--model=m", "--log-format=xml"}, {"--log-format", "xml", "json"}},
    {"Unknown", {"--model=m", "--shoe-size=43"}, {"--shoe-size"}},
    {"NoFile", {"--model=m", "--config=/nowhere.toml"}, {"/nowhere.toml"}},
};

INSTANTIATE_TEST_SUITE_P(All, BadArgumentTest, ::testing::ValuesIn(kBadArguments),
                         [](const auto& info) { return std::string(info.param.test); });

TEST(ConfigTest, HelpAndVersionEndWellWithoutAModel) {
  const auto help = Parse({"--help"});
  const auto version = Parse({"--version"});

  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.message, HasSubstr("--max-batch-tokens"));
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_THAT(version.message, HasSubstr("evaserve 0."));
}

TEST(ConfigTest, TheDocumentationListsEveryOption) {
  std::ifstream file(EVASERVE_DOCS_DIR "/configuration.md");
  std::stringstream text;
  text << file.rdbuf();

  for (const OptionName& option : OptionNames()) {
    EXPECT_THAT(text.str(), HasSubstr("`" + option.flag + "`"));
    if (!option.environment.empty()) {
      EXPECT_THAT(text.str(), HasSubstr("`" + option.environment + "`"));
    }
  }
}

}  // namespace
}  // namespace evaserve
