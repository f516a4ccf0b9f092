#include "server/rpc/request_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "absl/synchronization/mutex.h"
#include "tests/fakes/fake_model.h"
#include "tests/fakes/recording_observer.h"

namespace evaserve {
namespace {

class RequestGroupTest : public ::testing::Test {
 protected:
  void StartEngine(EngineOptions options = {}) {
    auto model = std::make_unique<FakeModel>();
    control_ = model->control();
    engine_.emplace(std::move(model), options, observer_);
  }

  Request MakeRequest(const std::string& prompt, int64_t max_new_tokens = 3) {
    Request request;
    request.tokens = engine_->tokenizer().Encode(prompt, false);
    request.generate.sampling.temperature = 0;
    request.generate.max_new_tokens = max_new_tokens;
    return request;
  }

  std::shared_ptr<RequestGroup> Start(std::vector<Request> requests) {
    return RequestGroup::Start(*engine_, std::move(requests),
                               [this](absl::Status status, std::vector<GroupResult> results) {
                                 absl::MutexLock lock(&mutex_);
                                 ++num_done_;
                                 status_ = std::move(status);
                                 results_ = std::move(results);
                               });
  }

  absl::Status WaitUntilDone() {
    absl::MutexLock lock(&mutex_);
    auto done = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return num_done_ > 0; };
    mutex_.Await(absl::Condition(&done));
    return status_;
  }

  // After this no callback can come any more.
  int CountDone() {
    engine_.reset();
    absl::MutexLock lock(&mutex_);
    return num_done_;
  }

  absl::Mutex mutex_;
  int num_done_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::vector<GroupResult> results_ ABSL_GUARDED_BY(mutex_);
  RecordingObserver observer_;
  std::shared_ptr<FakeModelControl> control_;
  std::optional<Engine> engine_;
};

TEST_F(RequestGroupTest, GivesTheResultsInTheOrderOfTheRequests) {
  StartEngine();
  std::vector<Request> requests;
  for (const int64_t length : {5, 1, 3}) requests.push_back(MakeRequest("ab", length));

  Start(std::move(requests));

  EXPECT_TRUE(WaitUntilDone().ok());
  EXPECT_EQ(CountDone(), 1);
  absl::MutexLock lock(&mutex_);
  ASSERT_EQ(results_.size(), 3u);
  EXPECT_EQ(results_[0].text.size(), 5u);
  EXPECT_EQ(results_[1].text.size(), 1u);
  EXPECT_EQ(results_[2].text.size(), 3u);
}

TEST_F(RequestGroupTest, ARefusalCancelsWhatWasTaken) {
  StartEngine({.max_running = 1, .max_waiting = 1});
  control_->SetStepTime(std::chrono::milliseconds(1));
  std::vector<Request> requests;
  for (int i = 0; i < 5; ++i) requests.push_back(MakeRequest("ab", 4000));

  Start(std::move(requests));

  EXPECT_EQ(WaitUntilDone().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(CountDone(), 1);
  EXPECT_LT(control_->steps().size(), 4000u);
}

TEST_F(RequestGroupTest, AFailureCancelsTheOthers) {
  StartEngine();
  control_->SetStepTime(std::chrono::milliseconds(1));
  const TokenId poison = *FakeTokenizer().ByteToken('!');
  control_->FailIf([poison](std::span<const TokenId> history) {
    return history[1] == poison ? absl::InternalError("broken") : absl::OkStatus();
  });
  std::vector<Request> requests;
  requests.push_back(MakeRequest("ab", 4000));
  requests.push_back(MakeRequest("!", 4000));

  Start(std::move(requests));

  EXPECT_EQ(WaitUntilDone().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(CountDone(), 1);
  EXPECT_LT(control_->steps().size(), 4000u);
}

TEST_F(RequestGroupTest, CancelEndsThemAll) {
  StartEngine();
  control_->Hold();
  std::vector<Request> requests;
  for (int i = 0; i < 3; ++i) requests.push_back(MakeRequest("ab", 4000));
  const auto group = Start(std::move(requests));
  control_->WaitUntilHeld();

  group->Cancel();
  control_->Release();

  EXPECT_EQ(WaitUntilDone().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(CountDone(), 1);
  EXPECT_LE(control_->steps().size(), 1u);
}

}  // namespace
}  // namespace evaserve
