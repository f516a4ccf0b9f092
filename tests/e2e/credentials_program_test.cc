// The real programs with certificates and tokens: what they refuse, what they log, and that they
// work together.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <regex>

#include "models/testing/random_model.h"
#include "models/testing/temp_dir.h"
#include "tests/e2e/program.h"
#include "tests/e2e/test_server.h"
#include "tests/fakes/certificate_authority.h"

namespace evaserve {
namespace {

using testing::HasSubstr;
using testing::Not;

class CredentialsProgramTest : public testing::Test {
 protected:
  CredentialsProgramTest() {
    WriteRandomModel(model_.path(), LongTinyConfig());
    const Identity server = authority_.Issue();
    const Identity client = authority_.Issue({.common_name = "somebody"});
    FileWith("ca.pem", authority_.certificate());
    FileWith("server.pem", server.cert);
    FileWith("server.key", server.key);
    FileWith("client.pem", client.cert);
    FileWith("client.key", client.key);
  }

  std::string File(const std::string& name) const { return directory_.path() / name; }

  std::string FileWith(const std::string& name, const std::string& text) const {
    WriteFile(File(name), text);
    return File(name);
  }

  std::vector<std::string> Args(const std::vector<std::string>& more) const {
    std::vector<std::string> args = {"--model",           "tiny=" + model_.path().string(),
                                     "--metrics-address", "127.0.0.1:0",
                                     "--log-level",       "trace"};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }

  std::vector<std::string> TlsArgs(const std::vector<std::string>& more) const {
    std::vector<std::string> args = {"--address",        "127.0.0.1:0", "--tls-cert",
                                     File("server.pem"), "--tls-key",   File("server.key")};
    args.insert(args.end(), more.begin(), more.end());
    return Args(args);
  }

  // The log of a server that ends at once, with exit code 2 and one line.
  std::string Refusal(const std::vector<std::string>& args) const {
    Program program(EVASERVE_PROGRAM, args);
    EXPECT_EQ(program.Wait(), 2);
    const std::string log = program.Error();
    EXPECT_EQ(log.find('\n'), log.size() - 1) << log;
    return log;
  }

  // HOST:PORT of a program that has said that it is ready.
  static std::string Target(Program& program) {
    EXPECT_TRUE(program.WaitForError("metrics=")) << program.Error();
    std::smatch match;
    const std::string log = program.Error();
    return std::regex_search(log, match, std::regex("grpc=(\\S+)")) ? match[1] : std::string();
  }

  // A new token of `eva token`; its entry goes into file "tokens".
  std::string MakeToken(const std::vector<std::string>& args) const {
    std::vector<std::string> all = {"token"};
    all.insert(all.end(), args.begin(), args.end());
    Program eva(EVA_PROGRAM, all);
    EXPECT_EQ(eva.Wait(), 0) << eva.Error();
    FileWith("tokens", "# made by eva\n" + eva.Output());
    std::string token = eva.Error();
    token.erase(token.find_last_not_of('\n') + 1);
    return token;
  }

  TempDir model_;
  TempDir directory_;
  CertificateAuthority authority_;
};

TEST_F(CredentialsProgramTest, FilesThatCannotBeUsedEndItWithTwo) {
  FileWith("server.pem", "garbage");
  EXPECT_THAT(Refusal(TlsArgs({})), HasSubstr("--tls-cert: " + File("server.pem") + ": "));
  FileWith("server.pem", authority_.Issue().cert);
  EXPECT_THAT(Refusal(TlsArgs({})), HasSubstr("--tls-key: " + File("server.key") + ": is not"));
  EXPECT_THAT(Refusal(Args({"--tls-cert", File("client.pem"), "--tls-key", File("client.key"),
                            "--tls-client-ca", File("nothing.pem")})),
              HasSubstr("--tls-client-ca: " + File("nothing.pem") + ": No such file"));
}

TEST_F(CredentialsProgramTest, ABrokenListOfTokensEndsItWithTwo) {
  const std::string tokens = FileWith("tokens", "\nalice hunter2 *\n");

  const std::string log = Refusal(Args({"--address=127.0.0.1:0", "--auth-tokens", tokens}));

  EXPECT_THAT(log, HasSubstr("--auth-tokens: " + tokens + ":2: sha256: "));
  EXPECT_THAT(log, Not(HasSubstr("hunter2")));
}

TEST_F(CredentialsProgramTest, EvaTalksToItWithCertificatesAndAToken) {
  const std::string token = MakeToken({"alice", "--may-use", "tiny"});
  Program server(EVASERVE_PROGRAM,
                 TlsArgs({"--tls-client-ca", File("ca.pem"), "--auth-tokens", File("tokens")}));
  const std::string target = Target(server);
  const std::vector<std::string> tls = {
      "--server",         target,      "--tls-ca",        File("ca.pem"), "--tls-cert",
      File("client.pem"), "--tls-key", File("client.key")};
  auto run = [&tls](std::vector<std::string> args) {
    args.insert(args.end(), tls.begin(), tls.end());
    Program eva(EVA_PROGRAM, args);
    const int exit_code = eva.Wait();
    return std::pair(exit_code, eva.Output() + eva.Error());
  };

  const auto good = run({"generate", "abc", "-n", "5", "--ignore-eos", "--token-file",
                         FileWith("token", token + "\n")});
  const auto wrong = run({"models", "--token-file", FileWith("wrong", "wrong-token")});
  const auto none = run({"models"});
  setenv("EVA_TOKEN", token.c_str(), 1);
  const auto from_environment = run({"models"});
  unsetenv("EVA_TOKEN");

  EXPECT_EQ(good.first, 0) << good.second;
  EXPECT_EQ(from_environment.first, 0) << from_environment.second;
  EXPECT_EQ(wrong.first, 1);
  EXPECT_THAT(wrong.second, HasSubstr("UNAUTHENTICATED"));
  EXPECT_EQ(none.first, 1);
  EXPECT_EQ(none.second, wrong.second);
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0);
  const std::string log = server.Error();
  EXPECT_THAT(log, HasSubstr(" client=alice model=tiny method=Generate code=OK"));
  EXPECT_THAT(log, HasSubstr(" client=\"\" model=\"\" method=ListModels code=UNAUTHENTICATED"));
  EXPECT_THAT(log, Not(HasSubstr(token)));
  EXPECT_THAT(log, Not(HasSubstr("wrong-token")));
  EXPECT_THAT(log, Not(HasSubstr("PRIVATE KEY")));
}

TEST_F(CredentialsProgramTest, WithoutTokensTheLogNamesTheCertificate) {
  Program server(EVASERVE_PROGRAM, TlsArgs({"--tls-client-ca", File("ca.pem")}));
  auto client = Client::Connect(Target(server), {.tls = true,
                                                 .ca_file = File("ca.pem"),
                                                 .cert_file = File("client.pem"),
                                                 .key_file = File("client.key")});
  ASSERT_TRUE(client.ok()) << client.status();

  GenerateAll(*client, GreedyRequest("abc", 1));

  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0);
  EXPECT_THAT(server.Error(), HasSubstr(" client=somebody model=tiny method=Generate code=OK"));
}

TEST_F(CredentialsProgramTest, EvaRefusesWhatWouldGiveATokenAway) {
  const std::string token = FileWith("token", "some-token");
  Program eva(EVA_PROGRAM,
              {"models", "--server", "192.0.2.1:8001", "--timeout", "5", "--token-file", token});

  EXPECT_EQ(eva.Wait(), 2);
  EXPECT_THAT(eva.Error(), HasSubstr("without TLS"));
  EXPECT_THAT(eva.Error(), Not(HasSubstr("some-token")));
}

TEST_F(CredentialsProgramTest, EvaNamesFilesThatItCannotUse) {
  auto error = [](std::vector<std::string> args) {
    args.insert(args.begin(), {"models", "--server", "127.0.0.1:9"});
    Program eva(EVA_PROGRAM, args);
    EXPECT_EQ(eva.Wait(), 2);
    return eva.Error();
  };

  EXPECT_THAT(error({"--tls-ca", File("nothing.pem")}), HasSubstr(File("nothing.pem")));
  EXPECT_THAT(error({"--tls-ca", FileWith("garbage", "garbage")}), HasSubstr("PEM"));
  EXPECT_THAT(error({"--tls-cert", File("client.pem")}), HasSubstr("key"));
  EXPECT_THAT(error({"--token-file", File("nothing")}), HasSubstr(File("nothing")));
  EXPECT_THAT(error({"--token-file", FileWith("two words", "two words")}), HasSubstr("token"));
}

TEST_F(CredentialsProgramTest, EveryTokenIsAnother) {
  const std::string first = MakeToken({"alice", "--may-use", "*", "--admin"});
  const std::string second = MakeToken({"alice", "--may-use", "*", "--admin"});

  EXPECT_NE(first, second);
  EXPECT_GE(first.size(), 43u);
  Program nameless(EVA_PROGRAM, {"token", "--may-use", "*"});
  EXPECT_EQ(nameless.Wait(), 2);
  Program two_words(EVA_PROGRAM, {"token", "two words", "--may-use", "*"});
  EXPECT_EQ(two_words.Wait(), 2);
}

}  // namespace
}  // namespace evaserve
