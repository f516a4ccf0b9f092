// The trace that a request is part of, in the log of the real program.
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <csignal>
#include <optional>
#include <regex>
#include <sstream>

#include "inference/open_inference.grpc.pb.h"
#include "models/testing/random_model.h"
#include "tests/e2e/call_method.h"
#include "tests/e2e/program.h"
#include "tests/e2e/test_server.h"

namespace evaserve {
namespace {

using testing::Each;
using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;

constexpr char kTraceparent[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
constexpr char kFields[] = " trace_id=4bf92f3577b34da6a3ce929d0e0e4736 span_id=00f067aa0ba902b7";

class TraceContextTest : public testing::Test {
 protected:
  TraceContextTest() { WriteRandomModel(directory_.path(), LongTinyConfig()); }

  // A server that logs every request.
  void Start(const std::vector<std::string>& more = {}) {
    std::vector<std::string> args = {"--model",           "tiny=" + directory_.path().string(),
                                     "--address",         "127.0.0.1:0",
                                     "--metrics-address", "127.0.0.1:0",
                                     "--log-level",       "debug"};
    args.insert(args.end(), more.begin(), more.end());
    program_.emplace(EVASERVE_PROGRAM, args);
    ASSERT_TRUE(program_->WaitForError("metrics=")) << program_->Error();
    std::smatch match;
    const std::string log = program_->Error();
    ASSERT_TRUE(std::regex_search(log, match, std::regex("grpc=(\\S+)")));
    channel_ = grpc::CreateChannel(match[1], grpc::InsecureChannelCredentials());
  }

  // Ends the server; what it had to say about its requests.
  std::vector<std::string> RequestLines() {
    program_->Signal(SIGTERM);
    EXPECT_EQ(program_->Wait(), 0);
    std::vector<std::string> lines;
    std::istringstream log(program_->Error());
    for (std::string line; std::getline(log, line);) {
      if (line.find(" request id=") != std::string::npos) lines.push_back(line);
    }
    return lines;
  }

  TempDir directory_;
  std::optional<Program> program_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(TraceContextTest, IsInTheLineOfEachMethod) {
  Start();
  const std::vector<std::string> methods = AllMethods();

  for (const std::string& method : methods) {
    CallMethod(channel_, method, {{"traceparent", kTraceparent}});
  }

  const std::vector<std::string> lines = RequestLines();
  ASSERT_EQ(lines.size(), methods.size());
  EXPECT_THAT(lines, Each(HasSubstr(kFields)));
}

TEST_F(TraceContextTest, IsInTheLineOfEachRequestOnAStream) {
  Start();
  grpc::ClientContext context;
  context.AddMetadata("traceparent", kTraceparent);
  auto stub = inference::GRPCInferenceService::NewStub(channel_);
  auto stream = stub->ModelStreamInfer(&context);
  stream->Write({});
  stream->Write({});
  stream->WritesDone();
  for (inference::ModelStreamInferResponse response; stream->Read(&response);) {
  }
  ASSERT_TRUE(stream->Finish().ok());

  const std::vector<std::string> lines = RequestLines();
  EXPECT_THAT(lines, SizeIs(2));
  EXPECT_THAT(lines, Each(HasSubstr(kFields)));
}

TEST_F(TraceContextTest, IsInTheLineOfARefusedCall) {
  WriteFile(directory_.path() / "tokens", "somebody " + std::string(64, 'a') + " *\n");
  Start({"--auth-tokens", directory_.path() / "tokens"});

  CallMethod(channel_, "/evaserve.v1.Inference/ListModels", {{"traceparent", kTraceparent}});

  const std::vector<std::string> lines = RequestLines();
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_THAT(lines.front(), HasSubstr("code=UNAUTHENTICATED"));
  EXPECT_THAT(lines.front(), HasSubstr(kFields));
}

TEST_F(TraceContextTest, ThatIsMissingMalformedOrNotOneIsLeftOut) {
  Start();
  const std::string method = "/evaserve.v1.Inference/ListModels";

  EXPECT_TRUE(CallMethod(channel_, method, {}).ok());
  EXPECT_TRUE(CallMethod(channel_, method, {{"traceparent", "what"}}).ok());
  EXPECT_TRUE(
      CallMethod(channel_, method, {{"traceparent", kTraceparent}, {"traceparent", kTraceparent}})
          .ok());

  const std::vector<std::string> lines = RequestLines();
  EXPECT_THAT(lines, SizeIs(3));
  EXPECT_THAT(lines, Each(Not(HasSubstr("trace_id"))));
  EXPECT_THAT(lines, Each(Not(HasSubstr("span_id"))));
}

}  // namespace
}  // namespace evaserve
