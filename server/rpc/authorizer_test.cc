#include "server/rpc/authorizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "models/testing/temp_dir.h"
#include "server/testing/captured_log.h"

namespace evaserve {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kGenerate[] = "/evaserve.v1.Inference/Generate";
constexpr char kLoad[] = "/inference.GRPCInferenceService/RepositoryModelLoad";

// Of "secret" and "other", as sha256sum says.
constexpr char kUser[] =
    "user 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b a,b\n";
constexpr char kAdmin[] =
    "ops d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa * admin\n";

class AuthorizerTest : public ::testing::Test {
 protected:
  AuthorizerTest() {
    WriteFile(file_, std::string(kUser) + kAdmin);
    auto loaded = Authorizer::Load(file_);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    authorizer_ = *std::move(loaded);
  }

  absl::StatusCode Check(const char* method, const char* authorization) const {
    return authorizer_->Check(method, authorization).code();
  }

  TempDir directory_;
  const std::filesystem::path file_ = directory_.path() / "tokens";
  std::unique_ptr<Authorizer> authorizer_;
};

TEST_F(AuthorizerTest, AValidTokenMayCall) {
  EXPECT_EQ(Check(kGenerate, "Bearer secret"), absl::StatusCode::kOk);
  EXPECT_EQ(Check(kGenerate, "bearer  secret"), absl::StatusCode::kOk);
  EXPECT_EQ(Check("/some.New/Method", "Bearer secret"), absl::StatusCode::kOk);
}

TEST_F(AuthorizerTest, AnythingElseIsUnauthenticated) {
  for (const char* wrong : {"", "Bearer", "Bearer ", "Bearer wrong", "secret", "Basic secret",
                            "Bearersecret", "Bearer secret ", "Bearer secret, Bearer other"}) {
    EXPECT_EQ(Check(kGenerate, wrong), absl::StatusCode::kUnauthenticated) << wrong;
    EXPECT_EQ(Check("/some.New/Method", wrong), absl::StatusCode::kUnauthenticated) << wrong;
  }
}

TEST_F(AuthorizerTest, AMissingAndAWrongTokenLookTheSame) {
  EXPECT_EQ(authorizer_->Check(kGenerate, ""), authorizer_->Check(kGenerate, "Bearer wrong"));
}

TEST_F(AuthorizerTest, HealthIsOpen) {
  for (const char* open : {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch",
                           "/inference.GRPCInferenceService/ServerLive",
                           "/inference.GRPCInferenceService/ServerReady"}) {
    EXPECT_EQ(Check(open, ""), absl::StatusCode::kOk) << open;
  }
}

TEST_F(AuthorizerTest, OnlyAdministratorsLoadModels) {
  EXPECT_EQ(Check(kLoad, "Bearer other"), absl::StatusCode::kOk);
  EXPECT_EQ(Check(kLoad, "Bearer secret"), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Check(kLoad, ""), absl::StatusCode::kUnauthenticated);
}

TEST_F(AuthorizerTest, ARefusalHasTheTokensName) {
  EXPECT_EQ(authorizer_->CallerWith("Bearer secret").name(), "user");
  EXPECT_EQ(authorizer_->CallerWith("Bearer wrong").name(), "");
  EXPECT_THAT(std::string(authorizer_->Check(kLoad, "Bearer secret").message()),
              HasSubstr("'user' may not administer the server"));
}

TEST_F(AuthorizerTest, ReloadTakesTheNewList) {
  WriteFile(file_, kAdmin);
  authorizer_->Reload();

  EXPECT_EQ(Check(kGenerate, "Bearer secret"), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(Check(kGenerate, "Bearer other"), absl::StatusCode::kOk);
}

TEST_F(AuthorizerTest, ABrokenListIsToldOnceAndChangesNothing) {
  const CapturedLog log;

  for (const char* broken : {"", "user secret *\n"}) {
    WriteFile(file_, broken);
    authorizer_->Reload();
    authorizer_->Reload();
    EXPECT_EQ(Check(kGenerate, "Bearer secret"), absl::StatusCode::kOk);
  }
  std::filesystem::remove(file_);
  authorizer_->Reload();
  authorizer_->Reload();

  EXPECT_EQ(Check(kGenerate, "Bearer secret"), absl::StatusCode::kOk);
  EXPECT_EQ(log.Count("broken"), 3);
  EXPECT_EQ(log.Count("secret"), 0);
}

TEST_F(AuthorizerTest, ABrokenFileIsNamedWithItsLine) {
  WriteFile(file_, std::string(kUser) + "somebody\n");

  const absl::Status status = Authorizer::Load(file_).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), StartsWith(file_.string() + ":2: "));
}

TEST(NoTokensTest, AnyoneMayDoEverything) {
  const Authorizer authorizer;

  EXPECT_TRUE(authorizer.Check(kGenerate, "").ok());
  EXPECT_TRUE(authorizer.Check(kLoad, "").ok());
}

TEST(CallerTest, NobodyMayUseNothing) {
  EXPECT_FALSE(Caller().MayUse("a"));
  EXPECT_EQ(Caller().CheckModel("a").code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(Caller().CheckAdmin().code(), absl::StatusCode::kUnauthenticated);
}

TEST(CallerTest, ARefusalNamesTheModelWithinReason) {
  const Caller caller(std::make_shared<const Token>(Token{.name = "user", .models = {"a"}}));

  EXPECT_TRUE(caller.CheckModel("a").ok());
  const absl::Status status = caller.CheckModel(std::string(100'000, 'b'));
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(status.message()), HasSubstr("'user' may not use model 'bbb"));
  EXPECT_LT(status.message().size(), 200u);
}

TEST(CallerTest, AnyoneMayUseEverything) {
  const Caller anyone = Caller::Anyone("the name");

  EXPECT_EQ(anyone.name(), "the name");
  EXPECT_TRUE(anyone.CheckModel("a").ok());
  EXPECT_TRUE(anyone.CheckAdmin().ok());
}

}  // namespace
}  // namespace evaserve
