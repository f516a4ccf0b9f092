#pragma once

#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/engine/tensor_engine.h"
#include "tests/fakes/fake_tensor_model.h"
#include "tests/fakes/recording_observer.h"

namespace evaserve {

// A tensor engine around a fake model, and what its requests were answered.
class TensorEngineTest : public ::testing::Test {
 protected:
  struct Result {
    Completion completion;
    TensorModel::Outputs outputs;
  };

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

}  // namespace evaserve
