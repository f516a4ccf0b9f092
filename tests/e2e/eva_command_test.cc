// The `eva` program against a server: what it prints and what it exits with.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <nlohmann/json.hpp>
#include <sstream>

#include "models/testing/random_model.h"
#include "tests/e2e/program.h"
#include "tests/e2e/test_server.h"

namespace evaserve {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// Nothing listens on the discard port.
constexpr char kNobody[] = "127.0.0.1:9";

struct Result {
  int exit_code = 0;
  std::string output;
  std::string error;

  // The output's lines as JSON.
  std::vector<json> objects() const {
    std::vector<json> objects;
    std::istringstream lines(output);
    for (std::string line; std::getline(lines, line);) objects.push_back(json::parse(line));
    return objects;
  }
};

class EvaCommandTest : public testing::Test {
 protected:
  std::vector<std::string> WithServer(std::vector<std::string> args) {
    args.insert(args.end(), {"--server", server_.target()});
    return args;
  }

  Result Run(const std::vector<std::string>& args, const std::string& input = "") {
    Program eva(EVA_PROGRAM, WithServer(args), input);
    return WaitFor(eva);
  }

  static Result WaitFor(Program& eva) {
    const int exit_code = eva.Wait();
    return {.exit_code = exit_code, .output = eva.Output(), .error = eva.Error()};
  }

  std::string FileWith(const std::string& name, const std::string& bytes) {
    WriteFile(files_.path() / name, bytes);
    return files_.path() / name;
  }

  TestServer& server_ = SharedServer();
  TempDir files_;
};

TEST_F(EvaCommandTest, GenerateWritesTheBytesAndNothingElse) {
  const std::string expected = GenerateAll(server_.client(), GreedyRequest("abc", 50));

  const Result result =
      Run({"generate", "abc", "--temperature", "0", "--max-tokens", "50", "--ignore-eos"});

  EXPECT_EQ(result.exit_code, 0) << result.error;
  EXPECT_EQ(result.output, expected);
  EXPECT_EQ(result.error, "");
}

TEST_F(EvaCommandTest, GenerateReadsFilesAndStandardInput) {
  const std::string prompt("any bytes \0\xff", 12);
  const std::string expected = GenerateAll(server_.client(), GreedyRequest(prompt, 20));
  const std::vector<std::string> flags = {"-t", "0", "-n", "20", "--ignore-eos"};
  std::vector<std::string> from_file = {"generate", "--file", FileWith("prompt", prompt)};
  std::vector<std::string> from_input = {"generate", "-"};
  from_file.insert(from_file.end(), flags.begin(), flags.end());
  from_input.insert(from_input.end(), flags.begin(), flags.end());

  EXPECT_EQ(Run(from_file).output, expected);
  EXPECT_EQ(Run(from_input, prompt).output, expected);
}

TEST_F(EvaCommandTest, GenerateAsJsonEndsWithTheFinish) {
  const Result result = Run({"generate", "abc", "-n", "5", "--ignore-eos", "--seed", "3", "--json",
                             "--top-logprobs", "2"});

  ASSERT_EQ(result.exit_code, 0) << result.error;
  const json last = result.objects().back();
  EXPECT_EQ(last["finish"]["reason"], "length");
  EXPECT_EQ(last["finish"]["seed"], 3);
  EXPECT_EQ(last["finish"]["usage"]["new_tokens"], 5);
  EXPECT_EQ(result.objects().front()["tokens"][0]["top"].size(), 2u);
}

TEST_F(EvaCommandTest, GeneratePrintsStatsToStandardError) {
  const Result result = Run({"generate", "abc", "-n", "5", "--ignore-eos", "--stats"});

  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.error, HasSubstr("bytes/s"));
}

TEST_F(EvaCommandTest, GeneratePrintsATokenPerLineWithLogprobs) {
  const Result result = Run({"generate", "abc", "-n", "5", "--ignore-eos", "--logprobs"});

  EXPECT_EQ(std::count(result.output.begin(), result.output.end(), '\n'), 5) << result.output;
}

TEST_F(EvaCommandTest, ScoreOfALongDocumentCountsEveryByte) {
  TempDir directory;
  WriteRandomModel(directory.path(), TinyConfig());
  Config config;
  config.models = {{.name = "short", .directory = directory.path()}};
  TestServer server(config);
  const std::string document(2 * TinyConfig().max_positions, 'e');

  Program eva(EVA_PROGRAM, {"score", "-", "--context", "10", "--json", "--server", server.target()},
              document);
  const Result result = WaitFor(eva);

  ASSERT_EQ(result.exit_code, 0) << result.error;
  EXPECT_EQ(result.objects()[0]["bytes"], document.size());
  EXPECT_EQ(result.objects()[0]["requests"], 3);
  EXPECT_GT(result.objects()[0]["bits_per_byte"], 0.0);
}

TEST_F(EvaCommandTest, ScoreIsThatOfTheServer) {
  v1::ScoreRequest request;
  request.set_text("some text");
  const auto score = server_.client().Score(request);
  ASSERT_TRUE(score.ok()) << score.status();

  const Result result = Run({"score", FileWith("text", "some text"), "--per-byte", "--json"});

  ASSERT_EQ(result.exit_code, 0) << result.error;
  EXPECT_NEAR(result.objects()[0]["log_likelihood"], score->log_likelihood(), 1e-3);
  EXPECT_EQ(result.objects()[0]["logprobs"].size(), 9u);
}

TEST_F(EvaCommandTest, TwoEmbeddingsShowTheirSimilarity) {
  const std::string file = FileWith("text", "some text");

  const Result same = Run({"embed", file, file, "--json"});
  const Result text = Run({"embed", file, FileWith("other", "12345 67890")});

  ASSERT_EQ(same.objects().size(), 3u) << same.error;
  EXPECT_EQ(same.objects()[0]["embedding"].size(),
            static_cast<size_t>(LongTinyConfig().hidden_size));
  EXPECT_NEAR(same.objects()[2]["cosine_similarity"], 1.0, 1e-5);
  EXPECT_THAT(text.output, HasSubstr("cosine similarity"));
}

TEST_F(EvaCommandTest, ModelsListsThem) {
  EXPECT_THAT(Run({"models"}).output, HasSubstr("tiny version 1: READY"));
  const std::vector<json> models = Run({"models", "--json"}).objects();
  EXPECT_EQ(models[0]["name"], "tiny");
  EXPECT_EQ(models[0]["token"], "byte");
}

TEST_F(EvaCommandTest, HealthTellsByItsExitCode) {
  const Result healthy = Run({"health", "--wait", "10"});
  EXPECT_EQ(healthy.exit_code, 0);
  EXPECT_EQ(healthy.output, "SERVING\n");
  EXPECT_EQ(Run({"health", "--model", "other"}).exit_code, 3);
  EXPECT_EQ(Program(EVA_PROGRAM, {"health", "--server", kNobody}).Wait(), 3);
}

TEST_F(EvaCommandTest, ARefusedRequestExitsWithOneAndTheMessage) {
  const Result result = Run({"generate", "abc", "--temperature", "-1"});

  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.error, HasSubstr("INVALID_ARGUMENT"));
  EXPECT_THAT(result.error, HasSubstr("temperature"));
}

TEST_F(EvaCommandTest, AServerThatIsNotThereExitsWithOne) {
  EXPECT_EQ(Program(EVA_PROGRAM, {"models", "--server", kNobody}).Wait(), 1);
}

TEST_F(EvaCommandTest, WrongUsageExitsWithTwo) {
  EXPECT_EQ(Run({"generate"}).exit_code, 2);
  EXPECT_EQ(Run({"generate", "abc", "--temperature", "warm"}).exit_code, 2);
  EXPECT_EQ(Run({"score", files_.path() / "missing"}).exit_code, 2);
  EXPECT_EQ(Run({"translate"}).exit_code, 2);
}

TEST_F(EvaCommandTest, ATimeoutExitsWithFour) {
  const Result result =
      Run({"generate", "abc", "-n", "100000", "--ignore-eos", "--timeout", "0.2"});

  EXPECT_EQ(result.exit_code, 4) << result.error;
  server_.WaitUntilIdle();
}

TEST_F(EvaCommandTest, AnInterruptCancelsTheRequest) {
  Program eva(EVA_PROGRAM, WithServer({"generate", "abc", "-n", "100000", "--ignore-eos"}));
  server_.WaitForMetric("evaserve_running_sequences", 1);

  eva.Signal(SIGINT);

  EXPECT_EQ(eva.Wait(), 130);
  server_.WaitUntilIdle();
}

TEST_F(EvaCommandTest, TheServerMayComeFromTheEnvironment) {
  setenv("EVA_SERVER", server_.target().c_str(), 1);
  EXPECT_EQ(Program(EVA_PROGRAM, {"health"}).Wait(), 0);
  unsetenv("EVA_SERVER");
}

}  // namespace
}  // namespace evaserve
