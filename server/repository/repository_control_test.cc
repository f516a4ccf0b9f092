#include "server/repository/repository_control.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "kernels/give_way.h"
#include "kernels/testing/counted_yields.h"
#include "models/testing/status_matchers.h"
#include "server/repository/testing/repository_on_disk.h"

namespace evaserve {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class RepositoryControlTest : public RepositoryOnDisk {};

// Beside requests, which go first.
TEST_F(RepositoryControlTest, LoadsInTheBackground) {
  Write("m/config.json");
  int yields = 0;
  before_load_ = [&yields] {
    const int before = num_yields;
    const TimePoint end = Clock::now() + std::chrono::seconds(10);
    while (yields == 0 && Clock::now() < end) {
      GiveWay();
      yields = num_yields - before;
    }
  };

  ASSERT_TRUE(Start({}).ok());

  EXPECT_EQ(yields, 1);
}

TEST_F(RepositoryControlTest, LoadsAllAtTheStartAndKeepsWhatFails) {
  Write("good/config.json");
  Write("bad/config.json", "broken");
  Write("odd/config.json");
  Write("odd/serving.json", R"({"max_runing": 1})");

  ASSERT_TRUE(Start({}).ok());

  EXPECT_EQ(StateOf("good"), "READY 1");
  EXPECT_EQ(StateOf("bad"), "UNAVAILABLE 1 config.json is broken");
  EXPECT_THAT(StateOf("odd"), HasSubstr("max_runing"));
}

TEST_F(RepositoryControlTest, ClientsLoadAndUnloadOnlyIfTheModeSaysSo) {
  Write("m/config.json");
  ASSERT_TRUE(Start({.mode = ControlMode::kNone}).ok());
  EXPECT_THAT(Unload("m"), IsError(absl::StatusCode::kUnimplemented, "--model-control-mode"));
  EXPECT_THAT(Load("m"), IsError(absl::StatusCode::kUnimplemented, "explicit"));
}

TEST_F(RepositoryControlTest, LoadsAndUnloadsAsClientsAsk) {
  Write("m/config.json");
  Write("n/config.json");
  ASSERT_TRUE(Start({.mode = ControlMode::kExplicit, .load_at_start = {"n"}}).ok());
  EXPECT_EQ(StateOf("m"), "UNAVAILABLE 0 not loaded");
  EXPECT_EQ(StateOf("n"), "READY 1");

  EXPECT_TRUE(Load("m").ok());
  EXPECT_EQ(StateOf("m"), "READY 1");
  EXPECT_TRUE(Unload("m").ok());
  EXPECT_TRUE(Becomes("m", "UNAVAILABLE 1 unloaded"));
  EXPECT_TRUE(absl::IsNotFound(Unload("m")));
  EXPECT_TRUE(Load("m").ok());
  EXPECT_THAT(Load("x"), IsError(absl::StatusCode::kNotFound, "\"x\""));
  EXPECT_THAT(Load("../m"), IsError(absl::StatusCode::kInvalidArgument, "model_name"));
}

TEST_F(RepositoryControlTest, LoadsAnewOnlyWhatHasChanged) {
  Write("m/config.json");
  ASSERT_TRUE(Start({.mode = ControlMode::kExplicit, .load_at_start = {"*"}}).ok());
  const auto engine = [&] { return models_.Find("m")->engine.get(); };
  const Engine* const first = engine();
  EXPECT_TRUE(Load("m").ok());
  EXPECT_EQ(engine(), first);
  EXPECT_TRUE(Load("m", {{"max_running", 3}}).ok());
  const Engine* const second = engine();
  EXPECT_NE(second, first);

  Write("m/config.json", "broken");
  EXPECT_FALSE(Load("m").ok());
  EXPECT_EQ(engine(), second);
  EXPECT_EQ(StateOf("m"), "READY 1 config.json is broken");
}

TEST_F(RepositoryControlTest, ALoadWithoutChangesUndoesThoseBefore) {
  Write("m/config.json");
  ASSERT_TRUE(Start({.mode = ControlMode::kExplicit, .load_at_start = {"*"}}).ok());
  const auto max_running = [&] { return models_.Find("m")->engine->options().max_running; };
  const int before = max_running();
  ASSERT_TRUE(Load("m", {{"max_running", 3}}).ok());
  ASSERT_EQ(max_running(), 3);

  EXPECT_TRUE(Load("m").ok());
  EXPECT_EQ(max_running(), before);
  EXPECT_TRUE(Load("m").ok());
  EXPECT_EQ(num_loads_, 3) << "nothing is left to undo";
}

TEST_F(RepositoryControlTest, GoesBackToAVersionThatIsStillUnloading) {
  Write("m/1/config.json");
  ASSERT_TRUE(Start({.mode = ControlMode::kExplicit, .load_at_start = {"*"}}).ok());
  const std::shared_ptr<FakeModelControl> old = newest_;
  old->Hold();
  auto sink = std::make_shared<RecordingSink>();
  ASSERT_TRUE(models_.Find("m")->engine->Submit(GenerateRequest("a", 1, sink)).ok());
  Write("m/2/config.json");
  ASSERT_TRUE(Load("m").ok());
  ASSERT_EQ(StateOf("m"), "UNLOADING 1");

  std::filesystem::remove_all(dir_.path() / "m/2");
  EXPECT_TRUE(Load("m").ok());

  EXPECT_TRUE(models_.Find("m", 1).ok());
  EXPECT_TRUE(absl::IsUnavailable(models_.Find("m", 2).status()));
  old->Release();
  EXPECT_TRUE(sink->WaitUntilDone().status.ok());
}

TEST_F(RepositoryControlTest, ANewVersionReplacesTheOneBefore) {
  Write("m/1/config.json");
  ASSERT_TRUE(Start({.mode = ControlMode::kExplicit, .load_at_start = {"m"}}).ok());
  Write("m/2/config.json");

  EXPECT_TRUE(Load("m").ok());

  EXPECT_EQ(models_.Find("m")->version, 2);
  EXPECT_TRUE(Becomes("m", "UNAVAILABLE 1 unloaded"));
}

TEST_F(RepositoryControlTest, AVersionThatFailsKeepsTheOneBefore) {
  Write("m/1/config.json");
  ASSERT_TRUE(Start({.mode = ControlMode::kExplicit, .load_at_start = {"m"}}).ok());
  Write("m/2/config.json", "broken");

  EXPECT_THAT(Load("m"), IsError(absl::StatusCode::kInvalidArgument, "broken"));
  EXPECT_EQ(StateOf("m"), "READY 1");

  Write("m/2/config.json");
  EXPECT_TRUE(Load("m").ok());
  EXPECT_EQ(models_.Find("m")->version, 2);
  EXPECT_TRUE(Becomes("m", "UNAVAILABLE 1 unloaded"));
}

TEST_F(RepositoryControlTest, LoadsNothingAfterItsEnd) {
  Write("m/config.json");
  ASSERT_TRUE(Start({.mode = ControlMode::kExplicit}).ok());
  EXPECT_TRUE(control_->Stop(TimePoint::max()));
  EXPECT_TRUE(absl::IsUnavailable(Load("m")));
}

// A load may take minutes, and nobody can break it off.
TEST_F(RepositoryControlTest, ItsEndNeedNotWaitForALoad) {
  Write("m/config.json");
  ASSERT_TRUE(Start({.mode = ControlMode::kExplicit}).ok());
  absl::Notification loading, may_load, told;
  before_load_ = [&] {
    loading.Notify();
    may_load.WaitForNotification();
  };
  absl::Status answer;
  control_->Load("m", nlohmann::json::object(), [&](absl::Status status) {
    answer = std::move(status);
    told.Notify();
  });
  loading.WaitForNotification();

  EXPECT_FALSE(control_->Stop(Clock::now()));

  told.WaitForNotification();
  EXPECT_TRUE(absl::IsUnavailable(answer));
  may_load.Notify();
  EXPECT_TRUE(control_->Stop(TimePoint::max()));
  EXPECT_EQ(StateOf("m"), "READY 1");
}

TEST_F(RepositoryControlTest, AnUnloadedModelIsFreedWhileAnotherOneLoads) {
  Write("old/config.json");
  Write("slow/config.json");
  ASSERT_TRUE(Start({.mode = ControlMode::kExplicit, .load_at_start = {"old"}}).ok());
  const std::shared_ptr<FakeModelControl> old = newest_;
  old->Hold();
  auto sink = std::make_shared<RecordingSink>();
  ASSERT_TRUE(models_.Find("old")->engine->Submit(GenerateRequest("a", 1, sink)).ok());
  absl::Notification loading, may_load;
  before_load_ = [&] {
    loading.Notify();
    may_load.WaitForNotification();
  };

  EXPECT_TRUE(Unload("old").ok());
  control_->Load("slow", nlohmann::json::object(), [](const absl::Status&) {});
  loading.WaitForNotification();
  EXPECT_EQ(StateOf("old"), "UNLOADING 1") << "it has a request";
  old->Release();

  EXPECT_TRUE(Becomes("old", "UNAVAILABLE 1 unloaded"));
  EXPECT_EQ(StateOf("slow"), "LOADING 1");
  may_load.Notify();
  EXPECT_TRUE(Becomes("slow", "READY 1"));
}

TEST_F(RepositoryControlTest, AClientMayTryAgainWhatIsBroken) {
  Write("m/1/config.json");
  ASSERT_TRUE(Start({.mode = ControlMode::kExplicit, .load_at_start = {"m"}}).ok());
  Write("m/2/config.json", "broken");

  EXPECT_FALSE(Load("m").ok());
  EXPECT_FALSE(Load("m").ok()) << "version 1 is there, 2 is not";
}

TEST_F(RepositoryControlTest, WhatFailedIsNotMissedWhenAClientUnloadsIt) {
  Write("m/config.json", "broken");
  ASSERT_TRUE(Start({.mode = ControlMode::kExplicit, .load_at_start = {"*"}}).ok());
  EXPECT_TRUE(Unload("m").ok());
  EXPECT_EQ(StateOf("m"), "UNAVAILABLE 1 unloaded");

  // Nor because somebody asks for it with settings that there are not.
  EXPECT_FALSE(Load("m", {{"max_runing", 1}}).ok());
  EXPECT_EQ(StateOf("m"), "UNAVAILABLE 1 unloaded");
}

TEST_F(RepositoryControlTest, TellsOnceOfDirectoriesThatAreNoVersion) {
  Write("m/1/config.json");
  Write("m/v2/config.json");
  std::vector<std::vector<std::string>> told;
  ASSERT_TRUE(
      Start({.mode = ControlMode::kExplicit,
             .load_at_start = {"m"},
             .on_ignored = [&](const std::string&,
                               const std::vector<std::string>& those) { told.push_back(those); }})
          .ok());
  EXPECT_TRUE(Load("m").ok());
  Write("m/02/config.json");
  EXPECT_TRUE(Load("m").ok());

  EXPECT_THAT(told, ElementsAre(ElementsAre("v2"), ElementsAre("02", "v2")));
}

TEST_F(RepositoryControlTest, ADirectoryWithoutAModelIsNone) {
  Write("lost+found/1234", "an inode");
  ASSERT_TRUE(Start({}).ok());
  EXPECT_EQ(StateOf("lost+found"), "");
}

TEST_F(RepositoryControlTest, AModelOfItsOwnMustLoad) {
  Write("a/config.json", "broken");
  RepositoryControl::Options options;
  options.fixed["mine"] = dir_.path() / "a";
  const absl::Status status = Start(std::move(options));
  EXPECT_THAT(status, IsError(absl::StatusCode::kInvalidArgument, "model 'mine'", "broken"));
}

TEST_F(RepositoryControlTest, AModelThatIsAskedForByNameMustLoad) {
  Write("m/config.json");
  EXPECT_THAT(Start({.mode = ControlMode::kExplicit, .load_at_start = {"x"}}),
              IsError(absl::StatusCode::kNotFound, "\"x\"", "there are: m"));
}

}  // namespace
}  // namespace evaserve
