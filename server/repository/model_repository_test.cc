#include "server/repository/model_repository.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "tests/fakes/fake_engine.h"

namespace evaserve {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A repository whose directory "broken" fails to load, and all others are fake models.
class ModelRepositoryTest : public ::testing::Test {
 protected:
  ModelRepository::Options FakeOptions() {
    ModelRepository::Options options;
    options.make_observer = [](const std::string&) {
      return std::make_unique<RecordingObserver>();
    };
    options.on_change = [this](const ModelStatus& status) { changes_.push_back(status); };
    options.load_model = [](const std::filesystem::path& directory, const LoadOptions&,
                            WorkerPool&) -> absl::StatusOr<std::unique_ptr<Model>> {
      if (directory == "broken") return absl::InvalidArgumentError("config.json is cut off");
      return std::make_unique<FakeModel>();
    };
    return options;
  }

  std::vector<ModelStatus> changes_;
};

TEST_F(ModelRepositoryTest, FindsALoadedModelByName) {
  ModelRepository models(FakeOptions());
  ASSERT_TRUE(models.Load("a", "good").ok());
  ASSERT_TRUE(models.Load("b", "good").ok());

  ASSERT_TRUE(models.Find("a").ok());
  EXPECT_EQ((*models.Find("a"))->info().architecture, "fake");
  EXPECT_NE(*models.Find("a"), *models.Find("b"));
}

TEST_F(ModelRepositoryTest, AnEmptyNameMeansTheOnlyModel) {
  ModelRepository models(FakeOptions());
  EXPECT_TRUE(absl::IsNotFound(models.Find("").status()));

  ASSERT_TRUE(models.Load("a", "good").ok());
  EXPECT_TRUE(models.Find("").ok());

  ASSERT_TRUE(models.Load("b", "good").ok());
  const absl::Status status = models.Find("").status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("a, b"));
}

TEST_F(ModelRepositoryTest, AnUnknownNameIsNotFoundAndListsThoseThereAre) {
  ModelRepository models(FakeOptions());
  ASSERT_TRUE(models.Load("a", "good").ok());

  const absl::Status status = models.Find("x").status();

  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_EQ(std::string(status.message()), "no model \"x\"; there are: a");
}

TEST_F(ModelRepositoryTest, AModelThatFailsKeepsItsReasonAndTheOthersServeOn) {
  ModelRepository models(FakeOptions());
  ASSERT_TRUE(models.Load("good", "good").ok());

  EXPECT_TRUE(absl::IsInvalidArgument(models.Load("bad", "broken")));

  const absl::Status status = models.Find("bad").status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("config.json is cut off"));
  EXPECT_TRUE(models.Find("good").ok());
}

TEST_F(ModelRepositoryTest, AModelThatFailedCanBeLoadedAgain) {
  ModelRepository models(FakeOptions());
  EXPECT_FALSE(models.Load("a", "broken").ok());

  EXPECT_TRUE(models.Load("a", "good").ok());
  EXPECT_TRUE(models.Find("a").ok());
  EXPECT_TRUE(absl::IsAlreadyExists(models.Load("a", "good")));
}

TEST_F(ModelRepositoryTest, ListsAndReportsEveryState) {
  ModelRepository models(FakeOptions());
  ASSERT_TRUE(models.Load("b", "good").ok());
  EXPECT_FALSE(models.Load("a", "broken").ok());

  const std::vector<ModelStatus> list = models.List();
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].name, "a");
  EXPECT_EQ(list[0].state, ModelState::kUnavailable);
  EXPECT_EQ(list[0].reason, "config.json is cut off");
  EXPECT_EQ(list[1].name, "b");
  EXPECT_EQ(list[1].state, ModelState::kReady);
  EXPECT_EQ(list[1].version, "1");

  std::vector<ModelState> states;
  for (const ModelStatus& change : changes_) states.push_back(change.state);
  EXPECT_THAT(states, ElementsAre(ModelState::kLoading, ModelState::kReady, ModelState::kLoading,
                                  ModelState::kUnavailable));
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
  std::thread loader([&] { EXPECT_TRUE(models.Load("a", "slow").ok()); });
  loading.WaitForNotification();

  EXPECT_TRUE(absl::IsUnavailable(models.Find("a").status()));
  EXPECT_TRUE(absl::IsAlreadyExists(models.Load("a", "slow")));
  models.DrainAll();
  go_on.Notify();
  loader.join();

  ASSERT_TRUE(models.Find("a").ok());
  auto sink = std::make_shared<RecordingSink>();
  EXPECT_TRUE(
      absl::IsUnavailable((*models.Find("a"))->Submit(GenerateRequest("a", 1, sink)).status()))
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
  ASSERT_TRUE(models.Load("a", "good").ok());
  auto sink = std::make_shared<RecordingSink>();
  control->Hold();
  ASSERT_TRUE((*models.Find("a"))->Submit(GenerateRequest("a", 1, sink)).ok());

  models.DrainAll();

  EXPECT_TRUE(
      absl::IsUnavailable((*models.Find("a"))->Submit(GenerateRequest("a", 1, sink)).status()));
  EXPECT_FALSE(models.WaitUntilIdle(Clock::now()));
  control->Release();
  EXPECT_TRUE(models.WaitUntilIdle(TimePoint::max()));
  EXPECT_TRUE(sink->WaitUntilDone().status.ok());
}

TEST_F(ModelRepositoryTest, TheRealLoaderSaysWhatIsMissing) {
  ModelRepository::Options options = FakeOptions();
  options.load_model = LoadModel;
  ModelRepository models(options);

  EXPECT_FALSE(models.Load("a", "no/such/directory").ok());
  EXPECT_THAT(models.List().front().reason, HasSubstr("no/such/directory"));
}

}  // namespace
}  // namespace evaserve
