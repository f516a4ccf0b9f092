#include "server/repository/model_repository.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <memory>
#include <new>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "tests/fakes/fake_engine.h"

namespace evaserve {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Gt;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// A model in a directory; what the tests count, no warm-up adds to.
ModelSource Source(const std::string& name, const std::string& directory, int64_t version = 1) {
  return {
      .name = name, .version = version, .directory = directory, .settings = {.warmup_tokens = 0}};
}

// A repository whose directory "broken" fails to load, "huge" and "endless" find no memory, and all
// others are fake models.
class ModelRepositoryTest : public ::testing::Test {
 protected:
  ModelRepository::Options FakeOptions() {
    ModelRepository::Options options;
    options.make_observer = [](const std::string&, int64_t) {
      return std::make_unique<RecordingObserver>();
    };
    options.on_change = [this](const ModelStatus& status) { changes_.push_back(status); };
    options.load_model = [](const std::filesystem::path& directory, const LoadOptions&,
                            WorkerPool&) -> absl::StatusOr<std::unique_ptr<Model>> {
      if (directory == "broken") return absl::InvalidArgumentError("config.json is cut off");
      if (directory == "huge") throw std::bad_alloc();
      if (directory == "endless") std::vector<char>().reserve(SIZE_MAX);
      return std::make_unique<FakeModel>();
    };
    return options;
  }

  std::vector<ModelStatus> changes_;
};

TEST_F(ModelRepositoryTest, FindsALoadedModelByName) {
  ModelRepository models(FakeOptions());
  ASSERT_TRUE(models.Load(Source("a", "good")).ok());
  ASSERT_TRUE(models.Load(Source("b", "good")).ok());

  ASSERT_TRUE(models.Find("a").ok());
  EXPECT_EQ(models.Find("a")->engine->info().architecture, "fake");
  EXPECT_NE(models.Find("a")->engine, models.Find("b")->engine);
}

TEST_F(ModelRepositoryTest, AnEmptyNameMeansTheOnlyModel) {
  ModelRepository models(FakeOptions());
  EXPECT_TRUE(absl::IsNotFound(models.Find("").status()));

  ASSERT_TRUE(models.Load(Source("a", "good")).ok());
  EXPECT_TRUE(models.Find("").ok());

  ASSERT_TRUE(models.Load(Source("b", "good")).ok());
  const absl::Status status = models.Find("").status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("a, b"));
}

TEST_F(ModelRepositoryTest, AnUnknownNameIsNotFoundAndListsThoseThereAre) {
  ModelRepository models(FakeOptions());
  ASSERT_TRUE(models.Load(Source("a", "good")).ok());

  const absl::Status status = models.Find("x").status();

  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_EQ(std::string(status.message()), "no model \"x\"; there are: a");
}

TEST_F(ModelRepositoryTest, WhoIsShownSomeModelsHearsOfThoseOnly) {
  ModelRepository models(FakeOptions());
  for (const char* name : {"a", "b", "c"}) ASSERT_TRUE(models.Load(Source(name, "good")).ok());
  const auto find = [&models](std::string_view name, const std::set<std::string_view>& shown) {
    const auto is_shown = [&shown](std::string_view model) { return shown.contains(model); };
    const auto found = models.Find(name, /*version=*/0, is_shown);
    return found.ok() ? found->name : std::string(found.status().message());
  };

  EXPECT_EQ(find("", {"b"}), "b");
  EXPECT_EQ(find("x", {"b"}), "no model \"x\"; there are: b");
  EXPECT_EQ(find("", {}), "no model \"\"; there are: none");
  EXPECT_EQ(find("", {"a", "c"}),
            "the model's name is empty, but there is more than one; there are: a, c");
}

TEST_F(ModelRepositoryTest, AModelThatFailsKeepsItsReasonAndTheOthersServeOn) {
  ModelRepository models(FakeOptions());
  ASSERT_TRUE(models.Load(Source("good", "good")).ok());

  EXPECT_TRUE(absl::IsInvalidArgument(models.Load(Source("bad", "broken"))));

  const absl::Status status = models.Find("bad").status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("config.json is cut off"));
  EXPECT_TRUE(models.Find("good").ok());
}

TEST_F(ModelRepositoryTest, AModelThatFindsNoMemoryFailsAndTheOthersServeOn) {
  ModelRepository models(FakeOptions());
  ASSERT_TRUE(models.Load(Source("good", "good")).ok());

  for (const std::string directory : {"huge", "endless"}) {
    const absl::Status status = models.Load(Source("bad", directory));
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
    EXPECT_EQ(std::string(status.message()), directory + ": not enough memory");
    EXPECT_TRUE(absl::IsUnavailable(models.Find("bad").status()));
  }
  EXPECT_TRUE(models.Find("good").ok());
}

// Where cores are few, the threads of other models go first.
TEST_F(ModelRepositoryTest, WarmsUpAtALowPriority) {
  ModelRepository::Options options = FakeOptions();
  std::vector<int> niceness;  // of steps
  options.load_model = [&niceness](auto&&...) -> absl::StatusOr<AnyModel> {
    auto model = std::make_unique<FakeModel>();
    model->control()->FailIf([&niceness](auto&&) {
      niceness.push_back(getpriority(PRIO_PROCESS, static_cast<id_t>(gettid())));
      return absl::OkStatus();
    });
    return AnyModel(std::move(model));
  };
  ModelRepository models(options);
  ModelSource source = Source("a", "good");
  source.settings.warmup_tokens = 1;

  ASSERT_TRUE(models.Load(source).ok());

  EXPECT_THAT(niceness, AllOf(Not(IsEmpty()), Each(Gt(getpriority(PRIO_PROCESS, 0)))));
}

TEST_F(ModelRepositoryTest, AModelThatFailedCanBeLoadedAgain) {
  ModelRepository models(FakeOptions());
  EXPECT_FALSE(models.Load(Source("a", "broken")).ok());

  EXPECT_TRUE(models.Load(Source("a", "good")).ok());
  EXPECT_TRUE(models.Find("a").ok());
}

// Whether an engine with a request in flight goes on to its end.
class ModelReplacementTest : public ModelRepositoryTest {
 protected:
  ModelReplacementTest() : models_(Options()) {
    EXPECT_TRUE(models_.Load(Source("a", "good")).ok());
    controls_[0]->Hold();
    EXPECT_TRUE(models_.Find("a")->engine->Submit(GenerateRequest("a", 2, sink_)).ok());
    controls_[0]->WaitUntilHeld();
  }

  ModelRepository::Options Options() {
    ModelRepository::Options options = FakeOptions();
    options.load_model = [this](const std::filesystem::path& directory, const LoadOptions&,
                                WorkerPool&) -> absl::StatusOr<std::unique_ptr<Model>> {
      if (directory == "broken") return absl::InvalidArgumentError("config.json is cut off");
      auto model = std::make_unique<FakeModel>();
      controls_.push_back(model->control());
      return model;
    };
    return options;
  }

  // The request ends well, and nothing of its engine is left.
  void ExpectGoodEnd() {
    EXPECT_TRUE(models_.Sweep()) << "its engine is busy";
    controls_[0]->Release();
    EXPECT_TRUE(sink_->WaitUntilDone().status.ok());
    while (models_.Sweep()) std::this_thread::yield();
    EXPECT_EQ(controls_[0]->live_sequences(), 0);
  }

  std::shared_ptr<RecordingSink> sink_ = std::make_shared<RecordingSink>();
  std::vector<std::shared_ptr<FakeModelControl>> controls_;  // of the models, as loaded
  ModelRepository models_;
};

TEST_F(ModelReplacementTest, ANewModelTakesNewRequestsAndTheOldOneEndsItsOwn) {
  ASSERT_TRUE(models_.Load(Source("a", "good")).ok());

  auto next = std::make_shared<RecordingSink>();
  ASSERT_TRUE(models_.Find("a")->engine->Submit(GenerateRequest("a", 1, next)).ok());
  EXPECT_TRUE(next->WaitUntilDone().status.ok());
  EXPECT_EQ(controls_[1]->steps().size(), 1u);
  ExpectGoodEnd();
}

TEST_F(ModelReplacementTest, AFailedLoadKeepsTheModelAndSaysWhy) {
  EXPECT_FALSE(models_.Load(Source("a", "broken")).ok());

  EXPECT_TRUE(models_.Find("a").ok());
  EXPECT_EQ(models_.List().front().state, ModelState::kReady);
  EXPECT_EQ(models_.List().front().reason, "config.json is cut off");
  controls_[0]->Release();
  EXPECT_TRUE(sink_->WaitUntilDone().status.ok());
}

TEST_F(ModelReplacementTest, AnUnloadedModelTakesNoMoreAndEndsWhatItHas) {
  ASSERT_TRUE(models_.Unload("a", 1).ok());

  EXPECT_EQ(models_.List().front().state, ModelState::kUnloading);
  EXPECT_TRUE(absl::IsUnavailable(models_.Find("a").status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(models_.Unload("a", 1)));
  ExpectGoodEnd();
  EXPECT_EQ(models_.List().front().state, ModelState::kUnavailable);
  EXPECT_EQ(models_.List().front().reason, "unloaded");
  EXPECT_TRUE(models_.Load(Source("a", "good")).ok());
}

TEST_F(ModelReplacementTest, AModelThatIsUnloadingIsLoadedBesideTheOneThatEnds) {
  ASSERT_TRUE(models_.Unload("a", 1).ok());

  EXPECT_TRUE(models_.Load(Source("a", "good")).ok());

  EXPECT_TRUE(models_.Find("a").ok());
  ExpectGoodEnd();
  EXPECT_EQ(models_.List().front().state, ModelState::kReady);
  EXPECT_TRUE(models_.Find("a").ok());
}

TEST_F(ModelReplacementTest, AModelIsUnloadedWhenAllItsEnginesHaveEnded) {
  ASSERT_TRUE(models_.Load(Source("a", "good")).ok());
  ASSERT_TRUE(models_.Unload("a", 1).ok());

  EXPECT_TRUE(models_.Sweep()) << "the first is busy";
  EXPECT_EQ(models_.List().front().state, ModelState::kUnloading);
  ExpectGoodEnd();
  EXPECT_EQ(models_.List().front().state, ModelState::kUnavailable);
  EXPECT_EQ(models_.List().front().reason, "unloaded");
}

TEST_F(ModelRepositoryTest, AModelThatFailedCanBeGivenUp) {
  ModelRepository models(FakeOptions());
  EXPECT_FALSE(models.Load(Source("a", "broken")).ok());
  EXPECT_FALSE(IsUnloaded(models.List().front()));

  EXPECT_TRUE(models.Unload("a", 1).ok());

  EXPECT_TRUE(IsUnloaded(models.List().front()));
  EXPECT_TRUE(IsUnloaded(changes_.back()));
  EXPECT_TRUE(absl::IsFailedPrecondition(models.Unload("a", 1)));
}

TEST_F(ModelRepositoryTest, TheHighestVersionThatIsReadyAnswersForAll) {
  ModelRepository models(FakeOptions());
  ASSERT_TRUE(models.Load(Source("a", "good", 3)).ok());
  ASSERT_TRUE(models.Load(Source("a", "good", 20)).ok());
  EXPECT_FALSE(models.Load(Source("a", "broken", 100)).ok());

  EXPECT_EQ(models.Find("a")->version, 20);
  EXPECT_EQ(models.Find("a", 3)->version, 3);
  EXPECT_TRUE(absl::IsUnavailable(models.Find("a", 100).status()));
  const absl::Status unknown = models.Find("a", 4).status();
  EXPECT_TRUE(absl::IsNotFound(unknown));
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("no version 4; there are: 3, 20, 100"));
  ASSERT_TRUE(models.Unload("a", 20).ok());
  EXPECT_EQ(models.Find("a")->version, 3);
}

TEST_F(ModelRepositoryTest, ListsAndReportsEveryState) {
  ModelRepository models(FakeOptions());
  ASSERT_TRUE(models.Load(Source("b", "good")).ok());
  EXPECT_FALSE(models.Load(Source("a", "broken")).ok());

  const std::vector<ModelStatus> list = models.List();
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].name, "a");
  EXPECT_EQ(list[0].state, ModelState::kUnavailable);
  EXPECT_EQ(list[0].reason, "config.json is cut off");
  EXPECT_EQ(list[1].name, "b");
  EXPECT_EQ(list[1].state, ModelState::kReady);
  EXPECT_EQ(list[1].version, 1);

  std::vector<ModelState> states;
  for (const ModelStatus& change : changes_) states.push_back(change.state);
  EXPECT_THAT(states, ElementsAre(ModelState::kLoading, ModelState::kReady, ModelState::kLoading,
                                  ModelState::kUnavailable));
}

TEST_F(ModelRepositoryTest, AModelThatIsLoadedAnewChangesOnce) {
  ModelRepository models(FakeOptions());
  ASSERT_TRUE(models.Load(Source("a", "good")).ok());
  changes_.clear();

  ASSERT_TRUE(models.Load(Source("a", "good")).ok());

  ASSERT_EQ(changes_.size(), 1u);
  EXPECT_EQ(changes_.front().state, ModelState::kReady);
}

TEST_F(ModelRepositoryTest, AModelIsUnavailableWhileItLoads) {
  absl::Notification loading;
  absl::Notification go_on;
  ModelRepository::Options options = FakeOptions();
  options.load_model = [&](const std::filesystem::path&, const LoadOptions&,
                           WorkerPool&) -> absl::StatusOr<std::unique_ptr<Model>> {
    loading.Notify();
    go_on.WaitForNotification();
    return std::make_unique<FakeModel>();
  };
  ModelRepository models(options);
  std::thread loader([&] { EXPECT_TRUE(models.Load(Source("a", "slow")).ok()); });
  loading.WaitForNotification();

  EXPECT_TRUE(absl::IsUnavailable(models.Find("a").status()));
  EXPECT_TRUE(absl::IsAlreadyExists(models.Load(Source("a", "slow"))));
  models.DrainAll();
  go_on.Notify();
  loader.join();

  ASSERT_TRUE(models.Find("a").ok());
  auto sink = std::make_shared<RecordingSink>();
  EXPECT_TRUE(
      absl::IsUnavailable(models.Find("a")->engine->Submit(GenerateRequest("a", 1, sink)).status()))
      << "it has to be drained as the others are";
}

TEST_F(ModelRepositoryTest, DrainsAllAndWaitsForAll) {
  std::shared_ptr<FakeModelControl> control;
  ModelRepository::Options options = FakeOptions();
  options.load_model = [&](const std::filesystem::path&, const LoadOptions&,
                           WorkerPool&) -> absl::StatusOr<std::unique_ptr<Model>> {
    auto model = std::make_unique<FakeModel>();
    control = model->control();
    return model;
  };
  ModelRepository models(options);
  ASSERT_TRUE(models.Load(Source("a", "good")).ok());
  auto sink = std::make_shared<RecordingSink>();
  control->Hold();
  ASSERT_TRUE(models.Find("a")->engine->Submit(GenerateRequest("a", 1, sink)).ok());

  models.DrainAll();

  EXPECT_TRUE(absl::IsUnavailable(
      models.Find("a")->engine->Submit(GenerateRequest("a", 1, sink)).status()));
  EXPECT_FALSE(models.WaitUntilIdle(Clock::now()));
  control->Release();
  EXPECT_TRUE(models.WaitUntilIdle(TimePoint::max()));
  EXPECT_TRUE(sink->WaitUntilDone().status.ok());
}

TEST_F(ModelRepositoryTest, TheRealLoaderSaysWhatIsMissing) {
  ModelRepository::Options options = FakeOptions();
  options.load_model = LoadModel;
  ModelRepository models(options);

  EXPECT_FALSE(models.Load(Source("a", "no/such/directory")).ok());
  EXPECT_THAT(models.List().front().reason, HasSubstr("no/such/directory"));
}

}  // namespace
}  // namespace evaserve
