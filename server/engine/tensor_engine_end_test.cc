#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "server/engine/tensor_engine.h"
#include "tests/fakes/tensor_engine_fixture.h"

namespace evaserve {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;

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
  control_->FailIf([](std::string_view data) {
    return data == "first" ? absl::OkStatus() : absl::UnavailableError("no device");
  });
  HoldModel();
  for (const char* data : {"a", "b"}) ASSERT_TRUE(Submit(data).ok());

  control_->Release();

  EXPECT_TRUE(absl::IsUnavailable(Take(2).completion.status));
  EXPECT_TRUE(absl::IsUnavailable(lost));
  ASSERT_TRUE(Submit("c").ok());
  EXPECT_TRUE(absl::IsUnavailable(Take(3).completion.status));
  EXPECT_THAT(control_->passes(), ElementsAre(1, 2)) << "no second try, and none of others";
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

}  // namespace
}  // namespace evaserve
