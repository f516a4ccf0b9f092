#include "server/repository/repository_control.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "models/testing/status_matchers.h"
#include "models/testing/temp_dir.h"
#include "tests/fakes/fake_engine.h"

namespace evaserve {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::chrono::milliseconds kOften{5};

// A repository on disk; a model whose config.json says "broken" fails to load.
class RepositoryControlTest : public testing::Test {
 protected:
  RepositoryControlTest() : models_(RepositoryOptions()) {}

  absl::StatusOr<std::unique_ptr<Model>> LoadFake(const std::filesystem::path& directory) {
    ++num_loads_;
    before_load_();
    if (!std::filesystem::exists(directory / "config.json")) {
      return absl::NotFoundError("config.json is missing");
    }
    if (std::filesystem::file_size(directory / "config.json") > 2) {
      return absl::InvalidArgumentError("config.json is broken");
    }
    if (!failures_.empty()) {
      absl::Status failure = failures_.front();
      failures_.pop_front();
      return failure;
    }
    auto model = std::make_unique<FakeModel>();
    newest_ = model->control();
    return model;
  }
  ModelRepository::Options RepositoryOptions() {
    ModelRepository::Options options;
    options.make_observer = [](const std::string&, int64_t) {
      return std::make_unique<RecordingObserver>();
    };
    options.load_model = [this](const std::filesystem::path& directory, auto&&...) {
      return LoadFake(directory);
    };
    return options;
  }

  void Write(const std::string& path, std::string_view contents = "{}") {
    std::filesystem::create_directories((dir_.path() / path).parent_path());
    WriteFile(dir_.path() / path, contents);
  }

  absl::Status Start(RepositoryControl::Options options) {
    if (!options.directory) options.directory.emplace(dir_.path(), ServingSettings());
    control_ = std::make_unique<RepositoryControl>(std::move(options), models_);
    return Wait([&](auto done) { control_->Start(done); });
  }

  // What a client gets to hear.
  absl::Status Load(const std::string& name,
                    const nlohmann::json& changes = nlohmann::json::object()) {
    return Wait([&](auto done) { control_->Load(name, changes, done); });
  }
  absl::Status Unload(const std::string& name) {
    return Wait([&](auto done) { control_->Unload(name, done); });
  }
  template <typename Ask>
  static absl::Status Wait(Ask&& ask) {
    absl::Status result;
    absl::Notification answered;
    ask([&](absl::Status status) {
      result = std::move(status);
      answered.Notify();
    });
    answered.WaitForNotification();
    return result;
  }

  // The state of a model in the index, "READY 1" or "UNAVAILABLE 0 not loaded", or nothing.
  std::string StateOf(const std::string& name) {
    for (const ModelStatus& status : control_->Index()) {
      if (status.name != name) continue;
      return std::string(Name(status.state)) + " " + std::to_string(status.version) +
             (status.reason.empty() ? "" : " " + status.reason);
    }
    return "";
  }
  // Waits for it, 10 s at most.
  bool Becomes(const std::string& name, const std::string& state) {
    for (int i = 0; i < 2000 && StateOf(name) != state; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return StateOf(name) == state;
  }

  const TempDir dir_;               // the repository
  const TempDir own_;               // of a model outside of it
  std::atomic<int> num_loads_ = 0;  // begun
  std::function<void()> before_load_ = [] {};
  std::deque<absl::Status> failures_;         // of the next loads; of the loading thread
  std::shared_ptr<FakeModelControl> newest_;  // of the model that was loaded last
  ModelRepository models_;
  std::unique_ptr<RepositoryControl> control_;
};

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

TEST_F(RepositoryControlTest, AfterABegunEndNoOtherModelIsLoaded) {
  Write("a/config.json");
  Write("b/config.json");
  before_load_ = [this] { control_->BeginStop(); };

  EXPECT_TRUE(absl::IsUnavailable(Start({.mode = ControlMode::kPoll, .poll_interval = kOften})));

  EXPECT_TRUE(control_->Stop(TimePoint::max()));
  EXPECT_EQ(num_loads_, 1);
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

TEST_F(RepositoryControlTest, FollowsTheDirectory) {
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

TEST_F(RepositoryControlTest, WhatFailedForAMomentIsTriedAgain) {
  Write("m/config.json");
  failures_ = {absl::UnavailableError("no"), absl::InternalError("no"),
               absl::ResourceExhaustedError("no")};

  ASSERT_TRUE(Start({.mode = ControlMode::kPoll, .poll_interval = kOften}).ok());

  EXPECT_TRUE(Becomes("m", "READY 1"));
}

TEST_F(RepositoryControlTest, WhatIsBrokenIsNotTriedAgainAndAgain) {
  Write("bad/config.json", "broken");
  ASSERT_TRUE(Start({.mode = ControlMode::kPoll, .poll_interval = kOften}).ok());

  for (const char* name : {"m", "n"}) {  // so that it has looked twice
    Write(absl::StrCat(name, "/config.json"));
    EXPECT_TRUE(Becomes(name, "READY 1"));
  }

  EXPECT_EQ(num_loads_, 3);
}

TEST_F(RepositoryControlTest, AClientMayTryAgainWhatIsBroken) {
  Write("m/1/config.json");
  ASSERT_TRUE(Start({.mode = ControlMode::kExplicit, .load_at_start = {"m"}}).ok());
  Write("m/2/config.json", "broken");

  EXPECT_FALSE(Load("m").ok());
  EXPECT_FALSE(Load("m").ok()) << "version 1 is there, 2 is not";
}

TEST_F(RepositoryControlTest, AModelThatComesBackWhileItIsUnloadingIsLoadedAtOnce) {
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

TEST_F(RepositoryControlTest, WhatFailedIsNotMissedWhenItsDirectoryIsGone) {
  Write("broken/config.json", "broken");
  Write("odd/config.json");
  Write("odd/serving.json", R"({"max_runing": 1})");
  ASSERT_TRUE(Start({.mode = ControlMode::kPoll, .poll_interval = kOften}).ok());

  std::filesystem::remove_all(dir_.path() / "broken");
  std::filesystem::remove_all(dir_.path() / "odd");

  EXPECT_TRUE(Becomes("broken", "UNAVAILABLE 1 unloaded"));
  EXPECT_TRUE(Becomes("odd", "UNAVAILABLE 1 unloaded"));
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

// Keeps what it is told last.
class MissingModelsTest : public RepositoryControlTest {
 protected:
  absl::Status StartIn(ControlMode mode) {
    return Start({.mode = mode,
                  .poll_interval = kOften,
                  .load_at_start = {"*"},
                  .on_missing = [this](const std::set<std::string>& models) {
                    absl::MutexLock lock(&mutex_);
                    missing_ = models;
                  }});
  }
  std::set<std::string> Missing() {
    absl::MutexLock lock(&mutex_);
    return missing_;
  }

  absl::Mutex mutex_;
  std::set<std::string> missing_;
};

TEST_F(MissingModelsTest, AreThoseOfTheStartUntilClientsLoadOrUnloadThem) {
  for (const char* name : {"mended", "unwanted", "left"}) {
    Write(absl::StrCat(name, "/config.json"), "broken");
  }
  Write("good/config.json");
  ASSERT_TRUE(StartIn(ControlMode::kExplicit).ok());
  EXPECT_THAT(Missing(), ElementsAre("left", "mended", "unwanted"));

  EXPECT_TRUE(Unload("unwanted").ok());
  EXPECT_FALSE(Load("mended").ok());
  EXPECT_THAT(Missing(), ElementsAre("left", "mended"));
  Write("mended/config.json");
  EXPECT_TRUE(Load("mended").ok());
  EXPECT_THAT(Missing(), ElementsAre("left"));
}

TEST_F(MissingModelsTest, AModelWithAVersionThatFailedIsOne) {
  Write("m/serving.json", R"({"version_policy": {"all": {}}})");
  Write("m/1/config.json");
  Write("m/2/config.json", "broken");

  ASSERT_TRUE(StartIn(ControlMode::kNone).ok());

  EXPECT_THAT(Missing(), ElementsAre("m"));
}

TEST_F(MissingModelsTest, AreNoMoreWhenTheDirectorySaysSo) {
  Write("mended/config.json", "broken");
  Write("gone/config.json", "broken");
  ASSERT_TRUE(StartIn(ControlMode::kPoll).ok());
  EXPECT_THAT(Missing(), ElementsAre("gone", "mended"));

  std::filesystem::remove_all(dir_.path() / "gone");
  EXPECT_TRUE(Becomes("gone", "UNAVAILABLE 1 unloaded"));
  EXPECT_THAT(Missing(), ElementsAre("mended"));
  Write("mended/config.json");
  Write("next/config.json");
  EXPECT_TRUE(Becomes("next", "READY 1")) << "the other one comes first";
  EXPECT_THAT(Missing(), ElementsAre());
}

TEST_F(MissingModelsTest, WhatComesLaterAndFailsIsNone) {
  Write("m/config.json");
  ASSERT_TRUE(StartIn(ControlMode::kPoll).ok());

  Write("new/config.json", "broken");
  EXPECT_TRUE(Becomes("new", "UNAVAILABLE 1 config.json is broken"));

  EXPECT_THAT(Missing(), ElementsAre());
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

// As while files are replaced one by one.
TEST_F(RepositoryControlTest, AModelWithoutAFileIsKept) {
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
