#include "server/step_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/fakes/fake_engine.h"

namespace evaserve {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// A model "m" that is stuck in a step.
class StepWatchTest : public ::testing::Test {
 protected:
  StepWatchTest() {
    EXPECT_TRUE(models_.Load({.name = "m", .settings = {.warmup_tokens = 0}}).ok());
    control_->Hold();
    EXPECT_TRUE(models_.Find("m")->engine->Submit(GenerateRequest("a", 1, sink_)).ok());
    while (!watch_.sees_stuck("m")) watch_.Look();
  }
  ~StepWatchTest() override { control_->Release(); }

  ModelRepository::Options Options() {
    ModelRepository::Options options;
    options.make_observer = [](const std::string&, int64_t) {
      return std::make_unique<RecordingObserver>();
    };
    options.load_model = [this](auto&&...) -> absl::StatusOr<AnyModel> {
      auto model = std::make_unique<FakeModel>();
      control_ = model->control();
      return model;
    };
    return options;
  }

  // The step ends, and what nobody needs any more is freed.
  void EndStep() {
    control_->Release();
    EXPECT_TRUE(sink_->WaitUntilDone().status.ok());
    while (models_.Sweep()) std::this_thread::yield();
  }

  std::shared_ptr<FakeModelControl> control_;
  std::shared_ptr<RecordingSink> sink_ = std::make_shared<RecordingSink>();
  std::vector<std::string> told_;
  Metrics metrics_{"test"};
  ModelRepository models_{Options()};
  StepWatch watch_{{.limit = std::chrono::milliseconds(1),
                    .on_change =
                        [this](const std::string& model, bool is_stuck) {
                          told_.push_back(model + (is_stuck ? " is stuck" : " goes on"));
                        }},
                   models_,
                   metrics_};
};

TEST_F(StepWatchTest, TellsWhenAStepDoesNotEndAndWhenItHasEnded) {
  EXPECT_THAT(told_, ElementsAre("m is stuck"));
  EXPECT_TRUE(watch_.sees_stuck());
  EndStep();

  watch_.Look();

  EXPECT_FALSE(watch_.sees_stuck());
  EXPECT_THAT(told_, ElementsAre("m is stuck", "m goes on"));
  EXPECT_THAT(metrics_.Text(), HasSubstr("evaserve_step_age_seconds{model=\"m\"} 0\n"));
}

TEST_F(StepWatchTest, SeesAnUnloadedModelUntilItsStepHasEndedAndShowsNothingOfItAfterThat) {
  ASSERT_TRUE(models_.Unload("m", 1).ok());
  watch_.Look();
  EXPECT_TRUE(watch_.sees_stuck("m"));
  EXPECT_THAT(told_, ElementsAre("m is stuck"));
  EndStep();

  watch_.Look();

  EXPECT_FALSE(watch_.sees_stuck("m"));
  EXPECT_THAT(told_, ElementsAre("m is stuck", "m goes on"));
  EXPECT_THAT(metrics_.Text(), Not(HasSubstr("evaserve_step_age_seconds{")));
}

}  // namespace
}  // namespace evaserve
