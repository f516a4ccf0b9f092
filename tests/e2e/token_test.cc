// Bearer tokens: which calls need one, and what each allows.
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <set>
#include <thread>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "inference/open_inference.grpc.pb.h"
#include "models/testing/random_model.h"
#include "models/testing/temp_dir.h"
#include "server/rpc/token_list.h"
#include "tests/e2e/call_method.h"
#include "tests/e2e/test_server.h"

namespace evaserve {
namespace {

using inference::ModelInferRequest;
using inference::ModelStreamInferResponse;
using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr absl::Duration kLong = absl::Seconds(10);
constexpr auto kUnauthenticated = absl::StatusCode::kUnauthenticated;
constexpr auto kPermissionDenied = absl::StatusCode::kPermissionDenied;

std::string Entry(const std::string& token, const std::string& rest) {
  const Sha256 hash = Sha256Of(token);
  return absl::StrCat(
      token, " ", absl::BytesToHexString({reinterpret_cast<const char*>(hash.data()), hash.size()}),
      " ", rest, "\n");
}

void SetToken(const std::string& token, grpc::ClientContext& context) {
  context.set_deadline(absl::ToChronoTime(absl::Now() + kLong));
  if (!token.empty()) context.AddMetadata("authorization", "Bearer " + token);
}

absl::StatusCode CodeOf(const grpc::Status& status) {
  return static_cast<absl::StatusCode>(status.error_code());
}

ModelInferRequest InferRequest(const std::string& model) {
  ModelInferRequest request;
  request.set_model_name(model);
  auto& input = *request.add_inputs();
  input.set_name("text_input");
  input.set_datatype("BYTES");
  input.add_shape(1);
  input.mutable_contents()->add_bytes_contents("abc");
  request.add_outputs()->set_name("log_likelihood");
  return request;
}

// A server with models "a" and "b" that reads its tokens all the time. Each token is the name of
// whom it belongs to.
class TokenTest : public testing::Test {
 protected:
  TokenTest() {
    WriteRandomModel(models_.path(), TinyConfig());
    Config config;
    config.models = {{.name = "a", .directory = models_.path()},
                     {.name = "b", .directory = models_.path()}};
    config.model_control_mode = ControlMode::kExplicit;
    config.auth_tokens = files_.path() / "tokens";
    config.credentials_reload = std::chrono::milliseconds(10);
    SetTokens(Entry("for-a", "a") + Entry("for-all", "*") + Entry("admin", "* admin") +
              Entry("admin-of-a", "a admin") + Entry("for-none", "c"));
    server_ = std::make_unique<TestServer>(config);
    channel_ = grpc::CreateChannel(server_->target(), grpc::InsecureChannelCredentials());
    stub_ = inference::GRPCInferenceService::NewStub(channel_);
  }

  void SetTokens(const std::string& entries) { WriteFile(files_.path() / "tokens", entries); }

  Client ClientWith(const std::string& token) const { return Client(channel_, token); }

  absl::StatusCode Generate(const std::string& token, const std::string& model) const {
    v1::GenerateRequest request = GreedyRequest("abc", 1);
    request.set_model(model);
    Client client = ClientWith(token);
    GenerateStream stream = client.Generate(request, {.deadline = absl::Now() + kLong});
    while (stream.Next()) {
    }
    return stream.Finish().code();
  }

  absl::StatusCode Score(const std::string& token, const std::string& model) const {
    v1::ScoreRequest request;
    request.set_text("abc");
    request.set_model(model);
    return ClientWith(token).Score(request, {.deadline = absl::Now() + kLong}).status().code();
  }

  absl::StatusCode Embed(const std::string& token, const std::string& model) const {
    v1::EmbedRequest request;
    request.set_text("abc");
    request.set_model(model);
    return ClientWith(token).Embed(request, {.deadline = absl::Now() + kLong}).status().code();
  }

  absl::StatusCode Infer(const std::string& token, const std::string& model) const {
    grpc::ClientContext context;
    SetToken(token, context);
    inference::ModelInferResponse response;
    return CodeOf(stub_->ModelInfer(&context, InferRequest(model), &response));
  }

  absl::StatusCode Metadata(const std::string& token, const std::string& model) const {
    grpc::ClientContext context;
    SetToken(token, context);
    inference::ModelMetadataRequest request;
    request.set_name(model);
    inference::ModelMetadataResponse response;
    return CodeOf(stub_->ModelMetadata(&context, request, &response));
  }

  absl::StatusCode Ready(const std::string& token, const std::string& model) const {
    grpc::ClientContext context;
    SetToken(token, context);
    inference::ModelReadyRequest request;
    request.set_name(model);
    inference::ModelReadyResponse response;
    return CodeOf(stub_->ModelReady(&context, request, &response));
  }

  // What all calls that name a model answer.
  std::set<absl::StatusCode> AllCalls(const std::string& token, const std::string& model) const {
    return {Generate(token, model), Score(token, model),    Embed(token, model),
            Infer(token, model),    Metadata(token, model), Ready(token, model)};
  }

  std::vector<std::string> Models(const std::string& token) const {
    std::vector<std::string> names;
    const auto models = ClientWith(token).ListModels({.deadline = absl::Now() + kLong});
    if (!models.ok()) return {models.status().ToString()};
    for (const v1::Model& model : *models) names.push_back(model.name());
    return names;
  }

  grpc::Status CallMethod(const std::string& method, const std::string& token) const {
    if (token.empty()) return evaserve::CallMethod(channel_, method, {});
    return evaserve::CallMethod(channel_, method, {{"authorization", "Bearer " + token}});
  }

  TempDir models_;
  TempDir files_;
  std::unique_ptr<TestServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<inference::GRPCInferenceService::Stub> stub_;
};

constexpr char kService[] = "/inference.GRPCInferenceService/";

TEST_F(TokenTest, EveryMethodButHealthNeedsAToken) {
  const std::set<std::string> open = {absl::StrCat(kService, "ServerLive"),
                                      absl::StrCat(kService, "ServerReady")};
  std::vector<std::string> methods = AllMethods();
  ASSERT_GE(methods.size(), 12u);
  methods.push_back("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo");

  for (const std::string& method : methods) {
    const auto code = open.contains(method) ? absl::StatusCode::kOk : kUnauthenticated;
    EXPECT_EQ(CodeOf(CallMethod(method, "")), code) << method;
    EXPECT_EQ(CodeOf(CallMethod(method, "wrong")), code) << method;
    EXPECT_NE(CodeOf(CallMethod(method, "admin")), kUnauthenticated) << method;
  }
}

TEST_F(TokenTest, MethodsThatChangeTheServerNeedAnAdministrator) {
  const std::set<std::string> admin = {absl::StrCat(kService, "RepositoryModelLoad"),
                                       absl::StrCat(kService, "RepositoryModelUnload"),
                                       absl::StrCat(kService, "LogSettings")};

  for (const std::string& method : AllMethods()) {
    if (!admin.contains(method)) continue;
    EXPECT_EQ(CodeOf(CallMethod(method, "for-all")), kPermissionDenied) << method;
    EXPECT_NE(CodeOf(CallMethod(method, "admin")), kPermissionDenied) << method;
  }
}

TEST_F(TokenTest, UnknownMethodsTellNothingWithoutAToken) {
  EXPECT_EQ(CodeOf(CallMethod("/evaserve.v1.Inference/Nothing", "")), kUnauthenticated);
  EXPECT_EQ(CodeOf(CallMethod("/evaserve.v1.Inference/Nothing", "for-a")),
            absl::StatusCode::kUnimplemented);
}

TEST_F(TokenTest, AMissingAndAWrongTokenLookTheSame) {
  const grpc::Status missing = CallMethod("/evaserve.v1.Inference/ListModels", "");
  const grpc::Status wrong = CallMethod("/evaserve.v1.Inference/ListModels", "wrong");

  EXPECT_EQ(missing.error_message(), wrong.error_message());
  EXPECT_THAT(missing.error_message(), HasSubstr("authorization: Bearer"));
}

TEST_F(TokenTest, HealthNeedsNone) {
  EXPECT_EQ(ClientWith("").IsServing().value(), true);
  EXPECT_EQ(ClientWith("wrong").IsServing("a").value(), true);
  EXPECT_TRUE(ClientWith("").WaitUntilServing("a", {.deadline = absl::Now() + kLong}).ok());
}

TEST_F(TokenTest, ATokenMayUseItsModelsAndNoOthers) {
  const auto ok = ElementsAre(absl::StatusCode::kOk);
  const auto denied = ElementsAre(kPermissionDenied);
  const auto unknown = ElementsAre(kUnauthenticated);

  EXPECT_THAT(AllCalls("for-a", "a"), ok);
  EXPECT_THAT(AllCalls("for-a", "b"), denied);
  EXPECT_THAT(AllCalls("for-all", "a"), ok);
  EXPECT_THAT(AllCalls("for-all", "b"), ok);
  EXPECT_THAT(AllCalls("admin", "a"), ok);
  EXPECT_THAT(AllCalls("for-none", "a"), denied);
  EXPECT_THAT(AllCalls("for-none", "b"), denied);
  EXPECT_THAT(AllCalls("", "a"), unknown);
  EXPECT_THAT(AllCalls("wrong", "a"), unknown);
}

TEST_F(TokenTest, WhetherAForbiddenModelExistsIsNotTold) {
  EXPECT_EQ(Generate("for-a", "nothing"), kPermissionDenied);
  EXPECT_EQ(Generate("for-all", "nothing"), absl::StatusCode::kNotFound);
}

// A ModelStreamInfer call.
class OpenStream {
 public:
  OpenStream(inference::GRPCInferenceService::Stub& stub, const std::string& token) {
    SetToken(token, context_);
    stream_ = stub.ModelStreamInfer(&context_);
  }

  // The answer to one request; empty, or its error.
  std::string ErrorOf(const std::string& model) {
    ModelStreamInferResponse response;
    if (!stream_->Write(InferRequest(model)) || !stream_->Read(&response)) return "the call ended";
    return response.error_message();
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<ModelInferRequest, ModelStreamInferResponse>> stream_;
};

TEST_F(TokenTest, AnEmptyNameMeansTheOnlyModelThatTheTokenMayUse) {
  EXPECT_THAT(AllCalls("for-a", ""), ElementsAre(absl::StatusCode::kOk));
  EXPECT_EQ(Infer("for-none", ""), absl::StatusCode::kNotFound);
  EXPECT_EQ(Infer("for-all", ""), absl::StatusCode::kInvalidArgument);
  OpenStream stream(*stub_, "for-none");
  EXPECT_EQ(stream.ErrorOf(""), "no model \"\"; there are: none");
}

TEST_F(TokenTest, ALoadOfWhatIsNotThereNamesThoseThatTheTokenMayUse) {
  const auto load = [this](const std::string& token) {
    grpc::ClientContext context;
    SetToken(token, context);
    inference::RepositoryModelLoadRequest request;
    request.set_model_name("nothing");
    inference::RepositoryModelLoadResponse response;
    return stub_->RepositoryModelLoad(&context, request, &response).error_message();
  };

  EXPECT_THAT(load("admin"), EndsWith("; there are: a, b"));
  EXPECT_THAT(load("admin-of-a"), EndsWith("; there are: a"));
}

TEST_F(TokenTest, ARefusalNamesTheModel) {
  v1::ScoreRequest request;
  request.set_text("abc");
  request.set_model("b");

  const absl::Status status = ClientWith("for-a").Score(request).status();

  EXPECT_THAT(std::string(status.message()), HasSubstr("'b'"));
}

TEST_F(TokenTest, AListOfModelsShowsThoseThatTheTokenMayUse) {
  EXPECT_THAT(Models("for-a"), ElementsAre("a"));
  EXPECT_THAT(Models("for-all"), ElementsAre("a", "b"));
  EXPECT_THAT(Models("for-none"), IsEmpty());
}

TEST_F(TokenTest, TwoTokensInOneCallAreRefused) {
  grpc::ClientContext context;
  SetToken("for-all", context);
  context.AddMetadata("authorization", "Bearer admin");
  inference::ServerMetadataResponse response;

  EXPECT_EQ(CodeOf(stub_->ServerMetadata(&context, {}, &response)), kUnauthenticated);
}

TEST_F(TokenTest, AStreamChecksEachRequest) {
  OpenStream stream(*stub_, "for-a");

  EXPECT_EQ(stream.ErrorOf("a"), "");
  EXPECT_THAT(stream.ErrorOf("b"), HasSubstr("may not use model 'b'"));
  EXPECT_EQ(stream.ErrorOf("a"), "");
}

TEST_F(TokenTest, ATokenTakenAwayIsRefusedOnOpenStreamsToo) {
  OpenStream stream(*stub_, "for-a");
  ASSERT_EQ(stream.ErrorOf("a"), "");

  SetTokens(Entry("for-all", "*"));
  const absl::Time deadline = absl::Now() + kLong;
  while (Score("for-a", "a") != kUnauthenticated && absl::Now() < deadline) {
    std::this_thread::yield();
  }

  EXPECT_EQ(Score("for-a", "a"), kUnauthenticated);
  EXPECT_THAT(stream.ErrorOf("a"), HasSubstr("valid token"));
  EXPECT_EQ(Score("for-all", "a"), absl::StatusCode::kOk);
}

TEST_F(TokenTest, RefusedCallsAreCountedByMethodsThatExist) {
  CallMethod("/evaserve.v1.Inference/Score", "wrong");
  CallMethod("/strangers.may.ask/Anything", "wrong");

  const std::string page = server_->HttpGet("/metrics");
  EXPECT_THAT(page,
              testing::ContainsRegex("code=\"UNAUTHENTICATED\",method=\"Score\"[^}]*\\} 1\n"));
  EXPECT_THAT(page,
              testing::ContainsRegex("code=\"UNAUTHENTICATED\",method=\"other\"[^}]*\\} 1\n"));
  EXPECT_THAT(page, testing::Not(HasSubstr("Anything")));
}

}  // namespace
}  // namespace evaserve
