#include "server/rpc/request_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "absl/synchronization/mutex.h"
#include "tests/fakes/fake_model.h"
#include "tests/fakes/recording_observer.h"
#include "tests/fakes/recording_sink.h"

namespace evaserve {
namespace {

using ::testing::HasSubstr;

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

  std::vector<Request> MakeRequests(int count) {
    std::vector<Request> requests;
    for (int i = 0; i < count; ++i) requests.push_back(MakeRequest("ab"));
    return requests;
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

TEST_F(RequestGroupTest, FillsAllPlaces) {
  StartEngine({.max_running = 2, .waiting = {.max_waiting = 3}});

  Start(MakeRequests(5));

  EXPECT_TRUE(WaitUntilDone().ok());
}

TEST_F(RequestGroupTest, NothingIsBegunOfAGroupThatDoesNotFitNow) {
  StartEngine({.max_running = 2, .waiting = {.max_waiting = 3}});
  control_->Hold();
  Request other = MakeRequest("other");
  other.sink = std::make_shared<RecordingSink>();
  ASSERT_TRUE(engine_->Submit(std::move(other)).ok());
  control_->WaitUntilHeld();

  Start(MakeRequests(5));

  EXPECT_EQ(WaitUntilDone().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(engine_->state().waiting, 0);
  control_->Release();
  EXPECT_EQ(CountDone(), 1);
}

TEST_F(RequestGroupTest, AGroupThatCanNeverFitIsWrong) {
  StartEngine({.max_running = 2, .waiting = {.max_waiting = 3}});

  Start(MakeRequests(6));

  const absl::Status status = WaitUntilDone();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("6 sequences, the limit is 5 (max_running 2 and max_waiting 3)"));
  EXPECT_EQ(CountDone(), 1);
  EXPECT_TRUE(control_->steps().empty());
}

TEST_F(RequestGroupTest, SoIsOneWithMoreTokensThanMayWait) {
  StartEngine({.waiting = {.max_waiting_tokens = 10}});

  Start(MakeRequests(4));

  const absl::Status status = WaitUntilDone();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("12 tokens, the limit is 10 (max_waiting_tokens)"));
  EXPECT_EQ(CountDone(), 1);
  EXPECT_TRUE(control_->steps().empty());
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
