#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "models/tensor_model.h"

namespace evaserve {

// A test's grip on a FakeTensorModel that an engine owns. Thread-safe; outlives the model.
class FakeTensorControl {
 public:
  // Decides whether a pass fails; asked with the data of each request's first input.
  using FailureRule = std::function<absl::Status(std::string_view data)>;

  // Every pass from now on waits for Release().
  void Hold() {
    absl::MutexLock lock(&mutex_);
    holding_ = true;
  }

  void Release() {
    absl::MutexLock lock(&mutex_);
    holding_ = false;
  }

  // Waits until a pass is held.
  void WaitUntilHeld() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&waits_));
  }

  void FailIf(FailureRule rule) {
    absl::MutexLock lock(&mutex_);
    failure_rule_ = std::move(rule);
  }

  // The number of requests in each pass so far.
  std::vector<int> passes() const {
    absl::MutexLock lock(&mutex_);
    return passes_;
  }

 private:
  friend class FakeImageModel;
  friend class FakeTensorModel;

  absl::Status Pass(std::span<const TensorModel::Inputs* const> requests) {
    absl::MutexLock lock(&mutex_);
    waits_ = holding_;
    const auto may_go = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !holding_; };
    mutex_.Await(absl::Condition(&may_go));
    waits_ = false;
    passes_.push_back(static_cast<int>(requests.size()));
    for (const TensorModel::Inputs* inputs : requests) {
      if (failure_rule_ == nullptr) break;
      if (absl::Status status = failure_rule_(inputs->front().data); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  mutable absl::Mutex mutex_;
  bool holding_ ABSL_GUARDED_BY(mutex_) = false;
  bool waits_ ABSL_GUARDED_BY(mutex_) = false;
  FailureRule failure_rule_ ABSL_GUARDED_BY(mutex_);
  std::vector<int> passes_ ABSL_GUARDED_BY(mutex_);
};

// Finds two classes in every image, which may be any bytes.
class FakeImageModel : public TensorModel {
 public:
  FakeImageModel() {
    info_.architecture = "fake_images";
    info_.inputs = {{"image", TensorType::kBytes, {-1}}};
    info_.outputs = {{"logits", TensorType::kFp32, {-1, 2}}};
  }

  const std::shared_ptr<FakeTensorControl>& control() const { return control_; }
  const TensorModelInfo& info() const override { return info_; }

  absl::StatusOr<std::vector<Outputs>> Run(std::span<const Inputs* const> requests) override {
    if (absl::Status status = control_->Pass(requests); !status.ok()) return status;
    std::vector<Outputs> results;
    for (const Inputs* inputs : requests) {
      const int64_t batch = inputs->front().shape[0];
      results.push_back({{{batch, 2}, std::string(batch * 2 * sizeof(float), '\0')}});
    }
    return results;
  }

 private:
  const std::shared_ptr<FakeTensorControl> control_ = std::make_shared<FakeTensorControl>();
  TensorModelInfo info_;
};

// Gives back its only input, UINT8 [-1, -1], twice: as "same" and as "again".
class FakeTensorModel : public TensorModel {
 public:
  FakeTensorModel() {
    info_.architecture = "fake_tensors";
    info_.inputs = {{"input", TensorType::kUint8, {-1, -1}}};
    info_.outputs = {{"same", TensorType::kUint8, {-1, -1}},
                     {"again", TensorType::kUint8, {-1, -1}}};
  }

  const std::shared_ptr<FakeTensorControl>& control() const { return control_; }
  const TensorModelInfo& info() const override { return info_; }

  absl::StatusOr<std::vector<Outputs>> Run(std::span<const Inputs* const> requests) override {
    if (absl::Status status = control_->Pass(requests); !status.ok()) return status;
    std::vector<Outputs> results;
    for (const Inputs* inputs : requests) {
      const OutputTensor output{inputs->front().shape, std::string(inputs->front().data)};
      results.push_back({output, output});
    }
    return results;
  }

 private:
  const std::shared_ptr<FakeTensorControl> control_ = std::make_shared<FakeTensorControl>();
  TensorModelInfo info_;
};

}  // namespace evaserve
