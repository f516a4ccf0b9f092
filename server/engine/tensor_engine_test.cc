#include "server/engine/tensor_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "tests/fakes/tensor_engine_fixture.h"

namespace evaserve {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;

TEST_F(TensorEngineTest, AnswersARequest) {
  ASSERT_TRUE(Submit("abc").ok());

  const Result result = Take(0);

  EXPECT_TRUE(result.completion.status.ok()) << result.completion.status;
  ASSERT_EQ(result.outputs.size(), 2u);
  EXPECT_EQ(result.outputs[1].data, "abc");
  EXPECT_THAT(result.outputs[1].shape, ElementsAre(1, 3));
}

TEST_F(TensorEngineTest, WhatComesDuringAPassRunsTogetherInTheNext) {
  HoldModel();
  for (const char* data : {"a", "b", "c"}) ASSERT_TRUE(Submit(data).ok());

  control_->Release();

  EXPECT_EQ(Take(1).outputs[0].data, "a");
  EXPECT_EQ(Take(3).outputs[0].data, "c");
  EXPECT_THAT(control_->passes(), ElementsAre(1, 3));
}

TEST_F(TensorEngineTest, OnlyTheGuiltyOneOfABatchFails) {
  control_->FailIf([](std::string_view data) {
    return data == "bad" ? absl::InvalidArgumentError("bad tensor") : absl::OkStatus();
  });
  HoldModel();
  const std::vector<std::string> all = {"a", "b", "c", "d", "e", "bad", "g", "h"};
  for (const std::string& data : all) ASSERT_TRUE(Submit(data).ok());

  control_->Release();

  for (size_t i = 0; i < all.size(); ++i) {
    const Result result = Take(i + 1);
    if (all[i] == "bad") {
      EXPECT_EQ(result.completion.status, absl::InvalidArgumentError("bad tensor"));
    } else {
      EXPECT_EQ(result.outputs[0].data, all[i]);
    }
  }
  EXPECT_THAT(control_->passes(), ElementsAre(1, 8, 4, 4, 2, 1, 1, 2)) << "halves, not one by one";
}

TEST_F(TensorEngineTest, OneThatFailsAloneIsNotTriedAgain) {
  control_->FailIf([](std::string_view) { return absl::InternalError("broken"); });

  ASSERT_TRUE(Submit("a").ok());

  EXPECT_TRUE(absl::IsInternal(Take(0).completion.status));
  EXPECT_THAT(control_->passes(), ElementsAre(1));
}

TEST_F(TensorEngineTest, AModelWithoutMemoryRefusesAndServesOn) {
  control_->FailIf([](std::string_view data) -> absl::Status {
    if (data == "large") throw std::bad_alloc();
    return absl::OkStatus();
  });
  ASSERT_TRUE(Submit("large").ok());
  EXPECT_TRUE(absl::IsResourceExhausted(Take(0).completion.status));
  ASSERT_TRUE(Submit("a").ok());
  EXPECT_TRUE(Take(1).completion.status.ok());
}

TEST_F(TensorEngineTest, RefusesMoreRowsThanABatchHas) {
  Restart({.max_batch_size = 3});
  const auto submit = [&](int64_t rows) {
    TensorRequest request = MakeRequest("abcd");
    request.inputs[0].shape = {rows, 1};
    request.batch = rows;
    return engine_->Submit(std::move(request)).status();
  };

  EXPECT_EQ(submit(4), absl::InvalidArgumentError(
                           "input: got a batch of 4, batch-size must be <= 3 (max_batch_size)"));
  EXPECT_TRUE(submit(3).ok());
}

TEST_F(TensorEngineTest, WithoutBatchesRequestsOfAnyRowsRunOneByOne) {
  Restart({.max_batch_size = 0});
  HoldModel();
  for (int i = 0; i < 2; ++i) {
    TensorRequest request = MakeRequest("abcd");
    request.inputs[0].shape = {4, 1};
    request.batch = 4;
    ASSERT_TRUE(engine_->Submit(std::move(request)).ok());
  }

  control_->Release();

  const Result result = Take(2);
  EXPECT_TRUE(result.completion.status.ok());
  EXPECT_EQ(result.completion.rows, 4);
  EXPECT_THAT(control_->passes(), ElementsAre(1, 1, 1));
}

// Keeps something in memory between passes.
class RememberingModel : public FakeTensorModel {
 public:
  StatePool state_pool() const override {
    return {.page_bytes = 8, .total_pages = 5, .free_pages = 2};
  }
};

TEST_F(TensorEngineTest, TellsWhatTheModelKeepsInMemory) {
  const TensorEngine engine(std::make_unique<RememberingModel>(), {}, observer_);
  EXPECT_EQ(engine.state().pages_used, 3);
  EXPECT_EQ(engine.state().pages_total, 5);
  EXPECT_EQ(engine.state().page_bytes, 8);
}

TEST_F(TensorEngineTest, ReportsToTheObserver) {
  HoldModel();
  for (const char* data : {"a", "b"}) ASSERT_TRUE(Submit(data).ok());
  control_->Release();
  ASSERT_TRUE(engine_->WaitUntilIdle(Clock::now() + milliseconds(10'000)));

  const RecordingObserver::Records records = observer_.records();

  ASSERT_EQ(records.steps.size(), 2u);
  EXPECT_EQ(records.steps[1].num_sequences, 2);
  EXPECT_EQ(records.steps[1].rows, 2);
  EXPECT_EQ(records.num_first_steps, 3);
  EXPECT_EQ(records.completions.size(), 3u);
}

// Forgets the last request's outputs.
class ForgetfulModel : public FakeTensorModel {
 public:
  absl::StatusOr<std::vector<Outputs>> Run(std::span<const Inputs* const> requests) override {
    return FakeTensorModel::Run(requests.first(requests.size() - 1));
  }
};

TEST_F(TensorEngineTest, AModelThatForgetsARequestIsToBlame) {
  TensorEngine engine(std::make_unique<ForgetfulModel>(), {}, observer_);

  ASSERT_TRUE(engine.Submit(MakeRequest("a")).ok());

  EXPECT_TRUE(absl::IsInternal(Take(0).completion.status));
}

// Looks at each request before it waits, and refuses those that begin with "bad".
class PickyModel : public FakeTensorModel {
 public:
  explicit PickyModel(int* num_looks) : num_looks_(num_looks) {}

  absl::StatusOr<int64_t> CountTokens(const Inputs& inputs) const override {
    ++*num_looks_;
    if (inputs[0].data.starts_with("bad")) return absl::InvalidArgumentError("input: is bad");
    return 1;
  }

 private:
  int* const num_looks_;
};

TEST_F(TensorEngineTest, WhatTheModelCannotTakeIsRefusedBeforeItWaits) {
  int num_looks = 0;
  TensorEngine engine(std::make_unique<PickyModel>(&num_looks), {}, observer_);

  EXPECT_EQ(engine.Submit(MakeRequest("bad")).status(),
            absl::InvalidArgumentError("input: is bad"));
  EXPECT_EQ(engine.state().waiting, 0);
}

TEST_F(TensorEngineTest, ARequestWithoutRoomCostsNoLook) {
  int num_looks = 0;
  TensorEngine engine(std::make_unique<PickyModel>(&num_looks), {.waiting = {.max_waiting = 0}},
                      observer_);

  EXPECT_TRUE(absl::IsResourceExhausted(engine.Submit(MakeRequest("a")).status()));
  EXPECT_EQ(num_looks, 0);
}

TEST_F(TensorEngineTest, RefusesAPriorityOutOfRange) {
  TensorRequest request = MakeRequest("a");
  request.priority = kLeastUrgent + 1;

  EXPECT_EQ(engine_->Submit(std::move(request)).status(),
            absl::InvalidArgumentError("priority is 16, allowed is 1 to 15"));
}

// Goes on until nobody wants its results, in steps of a millisecond.
TEST_F(TensorEngineTest, RefusesOneTooMany) {
  Restart({.waiting = {.max_waiting = 1}});
  HoldModel();
  ASSERT_TRUE(Submit("waits").ok());

  EXPECT_TRUE(absl::IsResourceExhausted(Submit("too many").status()));
  EXPECT_EQ(engine_->state().waiting, 1);
  EXPECT_EQ(engine_->state().running, 1);
  control_->Release();
  Take(1);
}

TEST_F(TensorEngineTest, TellsHowLongAPassTakes) {
  EXPECT_EQ(engine_->step_age(), std::nullopt);
  HoldModel();

  EXPECT_TRUE(engine_->step_age().has_value());
  control_->Release();
  Take(0);
}

}  // namespace
}  // namespace evaserve
