#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>

#include "absl/strings/str_cat.h"
#include "server/repository/testing/repository_on_disk.h"

namespace evaserve {
namespace {

class RepositoryPollTest : public RepositoryOnDisk {};

TEST_F(RepositoryPollTest, AfterABegunEndNoOtherModelIsLoaded) {
  Write("a/config.json");
  Write("b/config.json");
  before_load_ = [this] { control_->BeginStop(); };

  EXPECT_TRUE(absl::IsUnavailable(Start({.mode = ControlMode::kPoll, .poll_interval = kOften})));

  EXPECT_TRUE(control_->Stop(TimePoint::max()));
  EXPECT_EQ(num_loads_, 1);
}

TEST_F(RepositoryPollTest, FollowsTheDirectory) {
  Write("m/config.json");
  ASSERT_TRUE(Start({.mode = ControlMode::kPoll, .poll_interval = kOften}).ok());
  Write("n/config.json");
  EXPECT_TRUE(Becomes("n", "READY 1"));
  Write("n/config.json", "broken");
  EXPECT_TRUE(Becomes("n", "READY 1 config.json is broken"));
  std::filesystem::remove_all(dir_.path() / "m");
  EXPECT_TRUE(Becomes("m", "UNAVAILABLE 1 unloaded"));
  std::filesystem::rename(dir_.path() / "n", dir_.path() / "o");
  EXPECT_TRUE(Becomes("n", "UNAVAILABLE 1 unloaded"));
}

TEST_F(RepositoryPollTest, WhatFailedForAMomentIsTriedAgain) {
  Write("m/config.json");
  failures_ = {absl::UnavailableError("no"), absl::InternalError("no"),
               absl::ResourceExhaustedError("no")};

  ASSERT_TRUE(Start({.mode = ControlMode::kPoll, .poll_interval = kOften}).ok());

  EXPECT_TRUE(Becomes("m", "READY 1"));
}

TEST_F(RepositoryPollTest, WhatIsBrokenIsNotTriedAgainAndAgain) {
  Write("bad/config.json", "broken");
  ASSERT_TRUE(Start({.mode = ControlMode::kPoll, .poll_interval = kOften}).ok());

  for (const char* name : {"m", "n"}) {  // so that it has looked twice
    Write(absl::StrCat(name, "/config.json"));
    EXPECT_TRUE(Becomes(name, "READY 1"));
  }

  EXPECT_EQ(num_loads_, 3);
}

TEST_F(RepositoryPollTest, AModelThatComesBackWhileItIsUnloadingIsLoadedAtOnce) {
  Write("m/config.json");
  ASSERT_TRUE(Start({.mode = ControlMode::kPoll, .poll_interval = kOften}).ok());
  const std::shared_ptr<FakeModelControl> old = newest_;
  old->Hold();
  auto sink = std::make_shared<RecordingSink>();
  ASSERT_TRUE(models_.Find("m")->engine->Submit(GenerateRequest("a", 1, sink)).ok());
  std::filesystem::remove_all(dir_.path() / "m");
  EXPECT_TRUE(Becomes("m", "UNLOADING 1"));

  Write("m/config.json");

  EXPECT_TRUE(Becomes("m", "READY 1"));
  old->Release();
  EXPECT_TRUE(sink->WaitUntilDone().status.ok());
}

TEST_F(RepositoryPollTest, WhatFailedIsNotMissedWhenItsDirectoryIsGone) {
  Write("broken/config.json", "broken");
  Write("odd/config.json");
  Write("odd/serving.json", R"({"max_runing": 1})");
  ASSERT_TRUE(Start({.mode = ControlMode::kPoll, .poll_interval = kOften}).ok());

  std::filesystem::remove_all(dir_.path() / "broken");
  std::filesystem::remove_all(dir_.path() / "odd");

  EXPECT_TRUE(Becomes("broken", "UNAVAILABLE 1 unloaded"));
  EXPECT_TRUE(Becomes("odd", "UNAVAILABLE 1 unloaded"));
}

// As while files are replaced one by one.
TEST_F(RepositoryPollTest, AModelWithoutAFileIsKept) {
  Write("m/1/config.json");
  Write("flat/config.json");
  RepositoryControl::Options options{.mode = ControlMode::kPoll, .poll_interval = kOften};
  options.fixed["mine"] = own_.path();
  WriteFile(own_.path() / "config.json", "{}");
  ASSERT_TRUE(Start(std::move(options)).ok());

  std::filesystem::remove(dir_.path() / "m/1/config.json");
  std::filesystem::remove(dir_.path() / "flat/config.json");
  std::filesystem::remove(own_.path() / "config.json");

  EXPECT_TRUE(Becomes("m", "READY 1 config.json is missing"));
  EXPECT_TRUE(Becomes("mine", "READY 1 config.json is missing"));
  EXPECT_EQ(models_.Ready().size(), 3u);
  Write("m/1/config.json");
  EXPECT_TRUE(Becomes("m", "READY 1"));
}

}  // namespace
}  // namespace evaserve
