// The real program: how it starts, and how it ends while it is busy.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <regex>

#include "client/client.h"
#include "models/testing/random_model.h"
#include "tests/e2e/program.h"
#include "tests/e2e/test_server.h"

namespace evaserve {
namespace {

using testing::AnyOf;
using testing::HasSubstr;

class ServerProgramTest : public testing::Test {
 protected:
  ServerProgramTest() { WriteRandomModel(directory_.path(), LongTinyConfig()); }

  std::vector<std::string> Args(std::vector<std::string> more = {}) {
    std::vector<std::string> args = {"--model",           "tiny=" + directory_.path().string(),
                                     "--address",         "127.0.0.1:0",
                                     "--metrics-address", "127.0.0.1:0"};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }

  // HOST:PORT of a program that has said that it is ready.
  static std::string Target(const Program& program) {
    std::smatch match;
    const std::string log = program.Error();
    if (!std::regex_search(log, match, std::regex("grpc=(\\S+)"))) return "";
    return match[1];
  }

  TempDir directory_;
};

TEST_F(ServerProgramTest, ServesAndEndsWithZeroOnSigterm) {
  Program program(EVASERVE_PROGRAM, Args());
  ASSERT_TRUE(program.WaitForError("metrics=")) << program.Error();
  Client client(Target(program));
  EXPECT_FALSE(GenerateAll(client, GreedyRequest("abc", 10)).empty());

  program.Signal(SIGTERM);

  EXPECT_EQ(program.Wait(), 0) << program.Error();
}

TEST_F(ServerProgramTest, LetsStreamsFinishWhenItIsToEnd) {
  Program program(EVASERVE_PROGRAM, Args());
  ASSERT_TRUE(program.WaitForError("metrics=")) << program.Error();
  Client client(Target(program));
  GenerateStream stream = client.Generate(GreedyRequest("abc", 2000));
  ASSERT_TRUE(stream.Next().has_value());

  program.Signal(SIGTERM);
  ASSERT_TRUE(program.WaitForError("draining"));
  absl::Status late;  // soon after that line no more are taken; Cancelled as the port closes
  while (late.ok() || absl::IsCancelled(late)) {
    GenerateStream another = client.Generate(GreedyRequest("abc", 1));
    while (another.Next()) {
    }
    late = another.Finish();
  }
  while (stream.Next()) {
  }

  EXPECT_TRUE(stream.Finish().ok());
  EXPECT_TRUE(absl::IsUnavailable(late)) << late;
  EXPECT_EQ(program.Wait(), 0) << program.Error();
}

TEST_F(ServerProgramTest, EndsStreamsThatOutlastTheDrainTimeout) {
  Program program(EVASERVE_PROGRAM, Args({"--drain-timeout-s", "0"}));
  ASSERT_TRUE(program.WaitForError("metrics=")) << program.Error();
  Client client(Target(program));
  GenerateStream stream = client.Generate(EndlessRequest());
  ASSERT_TRUE(stream.Next().has_value());

  program.Signal(SIGTERM);
  while (stream.Next()) {
  }

  EXPECT_TRUE(absl::IsUnavailable(stream.Finish()));
  EXPECT_EQ(program.Wait(), 0) << program.Error();
}

// Steps of a larger model, in which the engine's thread is nearly all the time; outside of them it
// may hang with a lock.
TEST_F(ServerProgramTest, AStepThatHangsDoesNotKeepItFromEnding) {
  WriteRandomModel(directory_.path(), SizeSConfig());
  Program program(EVASERVE_PROGRAM, Args({"--drain-timeout-s", "0", "--threads", "1"}));
  ASSERT_TRUE(program.WaitForError("metrics=")) << program.Error();
  Client client(Target(program));
  GenerateStream stream = client.Generate(GreedyRequest("abc", 2000));
  ASSERT_TRUE(stream.Next().has_value());
  if (!program.StopThread("eva-engine")) GTEST_SKIP() << "threads cannot be stopped here";

  program.Signal(SIGTERM);

  EXPECT_EQ(program.Wait(), 1) << program.Error();
  EXPECT_THAT(program.Error(), AnyOf(HasSubstr("critical requests do not end in_flight=1"),
                                     HasSubstr("critical the server does not end")));
}

// A warm-up of a minute or so, which is part of a load.
TEST_F(ServerProgramTest, EndsAtOnceWhileItLoads) {
  TempDir directory;
  WriteRandomModel(directory.path(), SizeSConfig());
  Program program(EVASERVE_PROGRAM,
                  {"--model", "slow=" + directory.path().string(), "--address", "127.0.0.1:0",
                   "--metrics-address", "127.0.0.1:0", "--threads", "1", "--warmup-tokens", "60000",
                   "--log-level", "debug", "--drain-pause-s", "600"});
  ASSERT_TRUE(program.WaitForError("loading model=slow")) << program.Error();

  program.Signal(SIGTERM);

  EXPECT_EQ(program.Wait(), 0) << program.Error();
  EXPECT_THAT(program.Error(), HasSubstr("stopping"));
  EXPECT_THAT(program.Error(), testing::Not(HasSubstr("loaded model=slow")));
  EXPECT_THAT(program.Error(), testing::Not(HasSubstr("info ready")));
}

TEST_F(ServerProgramTest, ATakenPortEndsItWithOne) {
  Program first(EVASERVE_PROGRAM, Args());
  ASSERT_TRUE(first.WaitForError("metrics=")) << first.Error();
  const std::string taken = Target(first);

  Program second(EVASERVE_PROGRAM, {"--model", directory_.path(), "--address", taken});

  EXPECT_EQ(second.Wait(), 1);
  EXPECT_THAT(second.Error(), HasSubstr(taken));
}

TEST_F(ServerProgramTest, ALogLineStaysALine) {
  Program program(EVASERVE_PROGRAM, {"--model", "a=/no\nwhere\x1b[2J", "--address", "127.0.0.1:0",
                                     "--metrics-address", "off"});

  EXPECT_EQ(program.Wait(), 1);
  EXPECT_THAT(program.Error(), HasSubstr("/no\\x0awhere\\x1b[2J"));
  EXPECT_THAT(program.Error(), testing::Not(HasSubstr("\x1b")));
}

TEST_F(ServerProgramTest, AnUnknownFlagEndsItWithTwo) {
  Program program(EVASERVE_PROGRAM, Args({"--shoe-size", "43"}));

  EXPECT_EQ(program.Wait(), 2);
  EXPECT_THAT(program.Error(), HasSubstr("--shoe-size"));
}

}  // namespace
}  // namespace evaserve
