#include "server/engine/tensor_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <new>
#include <string>
#include <thread>

#include "tests/fakes/fake_tensor_model.h"
#include "tests/fakes/recording_observer.h"

namespace evaserve {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;

struct Result {
  Completion completion;
  TensorModel::Outputs outputs;
};

class TensorEngineTest : public ::testing::Test {
 protected:
  explicit TensorEngineTest(EngineOptions options = {}) { Restart(options); }

  void Restart(const EngineOptions& options) {
    engine_.reset();
    auto model = std::make_unique<FakeTensorModel>();
    control_ = model->control();
    engine_ = std::make_unique<TensorEngine>(std::move(model), options, observer_);
  }

  TensorRequest MakeRequest(const std::string& data) {
    data_.push_back(std::make_unique<std::string>(data));
    TensorRequest request;
    request.inputs = {{{1, std::ssize(data)}, *data_.back()}};
    auto result = std::make_shared<std::promise<Result>>();
    results_.push_back(result->get_future());
    request.done = [result](Completion completion, TensorModel::Outputs outputs) {
      result->set_value({std::move(completion), std::move(outputs)});
    };
    return request;
  }

  absl::StatusOr<uint64_t> Submit(const std::string& data) {
    return engine_->Submit(MakeRequest(data));
  }

  // Runs one request that holds the model, so that what follows gathers behind it.
  void HoldModel() {
    control_->Hold();
    ASSERT_TRUE(Submit("first").ok());
    control_->WaitUntilHeld();
  }

  Result Take(size_t index) { return results_[index].get(); }

  RecordingObserver observer_;
  std::shared_ptr<FakeTensorControl> control_;
  std::unique_ptr<TensorEngine> engine_;
  std::vector<std::unique_ptr<std::string>> data_;
  std::vector<std::future<Result>> results_;
};

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
  for (const char* data : {"good", "bad"}) ASSERT_TRUE(Submit(data).ok());

  control_->Release();

  EXPECT_EQ(Take(1).outputs[0].data, "good");
  EXPECT_TRUE(absl::IsInvalidArgument(Take(2).completion.status));
}

TEST_F(TensorEngineTest, ACancelledOneDoesNotRun) {
  HoldModel();
  const absl::StatusOr<uint64_t> id = Submit("cancelled");
  ASSERT_TRUE(id.ok());

  engine_->Cancel(*id);
  control_->Release();

  EXPECT_TRUE(absl::IsCancelled(Take(1).completion.status));
  EXPECT_TRUE(engine_->WaitUntilIdle(Clock::now() + milliseconds(10'000)));
  EXPECT_THAT(control_->passes(), ElementsAre(1));
}

TEST_F(TensorEngineTest, CancellingAfterTheEndDoesNothing) {
  const absl::StatusOr<uint64_t> id = Submit("a");
  Take(0);

  engine_->Cancel(*id);

  ASSERT_TRUE(Submit("b").ok());
  EXPECT_TRUE(Take(1).completion.status.ok());
}

TEST_F(TensorEngineTest, OneWhoseDeadlinePassesDoesNotRun) {
  HoldModel();
  TensorRequest late = MakeRequest("late");
  const TimePoint deadline = late.deadline = Clock::now() + milliseconds(5);
  ASSERT_TRUE(engine_->Submit(std::move(late)).ok());

  while (Clock::now() < deadline) {
  }
  control_->Release();

  EXPECT_TRUE(absl::IsDeadlineExceeded(Take(1).completion.status));
  EXPECT_THAT(control_->passes(), ElementsAre(1));
}

TEST_F(TensorEngineTest, MaxRequestTimeIsADeadline) {
  Restart({.max_request_time = milliseconds(5), .max_queue_delay = std::chrono::hours(1)});

  ASSERT_TRUE(Submit("a").ok());

  EXPECT_TRUE(absl::IsDeadlineExceeded(Take(0).completion.status));
}

TEST_F(TensorEngineTest, RefusesOneThatIsTooLate) {
  TensorRequest late = MakeRequest("late");
  late.deadline = Clock::now();

  EXPECT_TRUE(absl::IsDeadlineExceeded(engine_->Submit(std::move(late)).status()));
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
class EndlessModel : public FakeTensorModel {
 public:
  absl::StatusOr<std::vector<Outputs>> Run(std::span<const Inputs* const> requests) override {
    num_requests = static_cast<int>(requests.size());
    while (is_wanted()()) std::this_thread::sleep_for(milliseconds(1));
    return absl::CancelledError("nobody waits");
  }

  static inline std::atomic<int> num_requests = 0;
};

class EndlessTest : public TensorEngineTest {
 protected:
  // Both in one pass.
  void SubmitTwo(TimePoint first_deadline, TimePoint second_deadline) {
    EndlessModel::num_requests = 0;
    endless_ = std::make_unique<TensorEngine>(
        std::make_unique<EndlessModel>(),
        EngineOptions{.max_batch_size = 2, .max_queue_delay = std::chrono::hours(1)}, observer_);
    for (const TimePoint deadline : {first_deadline, second_deadline}) {
      TensorRequest request = MakeRequest("a");
      request.deadline = deadline;
      ids_.push_back(endless_->Submit(std::move(request)).value());
    }
    while (EndlessModel::num_requests < 2) std::this_thread::yield();
  }

  std::unique_ptr<TensorEngine> endless_;
  std::vector<uint64_t> ids_;
};

TEST_F(EndlessTest, APassEndsWhenNobodyWaitsForIt) {
  SubmitTwo(TimePoint::max(), Clock::now() + milliseconds(200));

  endless_->Cancel(ids_[0]);

  EXPECT_EQ(Take(0).completion.status, absl::CancelledError("the request was cancelled"));
  EXPECT_EQ(Take(1).completion.status, absl::DeadlineExceededError("the deadline has passed"));
}

TEST_F(EndlessTest, APassGoesOnWhileOneWaitsForIt) {
  SubmitTwo(TimePoint::max(), TimePoint::max());

  endless_->Cancel(ids_[0]);

  EXPECT_EQ(results_[0].wait_for(milliseconds(600)), std::future_status::timeout);
  EXPECT_LT(*endless_->step_age(), milliseconds(500));  // it is not stuck
  endless_->Cancel(ids_[1]);
  EXPECT_TRUE(absl::IsCancelled(Take(1).completion.status));
}

TEST_F(EndlessTest, APassEndsWithTheEngine) {
  SubmitTwo(TimePoint::max(), TimePoint::max());

  endless_.reset();

  EXPECT_TRUE(absl::IsUnavailable(Take(0).completion.status));
}

TEST_F(TensorEngineTest, MaxQueueTimeEndsOneThatWaits) {
  Restart({.max_queue_time = milliseconds(5), .max_queue_delay = std::chrono::hours(1)});

  ASSERT_TRUE(Submit("a").ok());

  EXPECT_TRUE(absl::IsDeadlineExceeded(Take(0).completion.status));
}

TEST_F(TensorEngineTest, WaitingTooLongIsOverloadForTritonsClients) {
  Restart({.waiting = {.overload_status = OverloadStatus::kUnavailable},
           .max_queue_time = milliseconds(5),
           .max_queue_delay = std::chrono::hours(1)});

  ASSERT_TRUE(Submit("a").ok());

  const absl::Status status = Take(0).completion.status;
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_TRUE(IsOverload(status));
}

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

TEST_F(TensorEngineTest, AfterDrainOthersAreRefusedAndTheRestEnds) {
  HoldModel();
  ASSERT_TRUE(Submit("waits").ok());

  engine_->Drain();

  EXPECT_TRUE(absl::IsUnavailable(Submit("late").status()));
  EXPECT_FALSE(engine_->WaitUntilIdle(Clock::now()));
  control_->Release();
  EXPECT_TRUE(engine_->WaitUntilIdle(Clock::now() + milliseconds(10'000)));
  EXPECT_TRUE(Take(1).completion.status.ok());
}

TEST_F(TensorEngineTest, ItsEndEndsThoseThatWait) {
  HoldModel();
  for (const char* data : {"a", "b"}) ASSERT_TRUE(Submit(data).ok());
  std::thread end([this] { engine_.reset(); });

  control_->Release();
  end.join();

  Take(0);
  for (size_t i : {1, 2}) {
    const absl::Status status = Take(i).completion.status;
    EXPECT_TRUE(absl::IsUnavailable(status) || status.ok()) << status;
  }
}

TEST_F(TensorEngineTest, ALostModelIsToldAndNothingRunsAgain) {
  absl::Status lost;
  Restart({.on_model_lost = [&lost](const absl::Status& status) { lost = status; }});
  control_->FailIf([](std::string_view) { return absl::UnavailableError("no device"); });
  HoldModel();
  for (const char* data : {"a", "b"}) ASSERT_TRUE(Submit(data).ok());

  control_->Release();

  EXPECT_TRUE(absl::IsUnavailable(Take(2).completion.status));
  EXPECT_TRUE(absl::IsUnavailable(lost));
  EXPECT_THAT(control_->passes(), ElementsAre(1, 2)) << "no second try";
}

TEST_F(TensorEngineTest, AModelThatIsLostAtTheSecondTryRunsNoThird) {
  absl::Status lost;
  Restart({.on_model_lost = [&lost](const absl::Status& status) { lost = status; }});
  int num_looks = 0;
  control_->FailIf([&num_looks](std::string_view data) -> absl::Status {
    if (data == "first") return absl::OkStatus();
    return num_looks++ == 0 ? absl::InternalError("no memory") : absl::UnavailableError("gone");
  });
  HoldModel();
  for (const char* data : {"a", "b", "c"}) ASSERT_TRUE(Submit(data).ok());

  control_->Release();

  for (size_t i : {1, 2, 3}) EXPECT_TRUE(absl::IsUnavailable(Take(i).completion.status));
  EXPECT_TRUE(absl::IsUnavailable(lost));
  EXPECT_THAT(control_->passes(), ElementsAre(1, 3, 1));
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
