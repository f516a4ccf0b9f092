#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "models/tensor_model.h"
#include "server/engine/batch_queue.h"
#include "server/engine/engine.h"
#include "server/engine/model_engine.h"
#include "server/engine/observer.h"
#include "server/engine/step_clock.h"

namespace evaserve {

// A request to a TensorModel.
struct TensorRequest {
  // How it ended, and the outputs if it ended well. Called once, on the engine's thread, which must
  // not wait.
  using Done = std::function<void(Completion completion, TensorModel::Outputs outputs)>;

  TensorModel::Inputs inputs;  // their data must stay until `done`
  int64_t batch = 1;           // the inputs' first dimension
  TimePoint deadline = TimePoint::max();
  int priority = kDefaultPriority;
  Done done;
};

// Runs the requests of one TensorModel together, in batches that BatchQueue forms. While a batch
// runs the next one gathers. A batch that fails is tried again in halves, so that only the guilty
// ones fail.
//
// Of EngineOptions, those hold that are about batches, waiting and time. Owns one thread.
// Thread-safe.
class TensorEngine : public ModelEngine {
 public:
  // `observer` must outlive the engine.
  TensorEngine(std::unique_ptr<TensorModel> model, const EngineOptions& options,
               EngineObserver& observer);

  // Ends what is in flight with Unavailable.
  ~TensorEngine() override;

  TensorEngine(const TensorEngine&) = delete;
  TensorEngine& operator=(const TensorEngine&) = delete;

  const TensorModelInfo& info() const { return model_->info(); }
  const EngineOptions& options() const { return options_; }

  // Takes a request, whose inputs fit info().inputs; never waits. Returns its id, for Cancel(). On
  // error `done` is not called.
  //
  // Errors: ResourceExhausted when too much is waiting; DeadlineExceeded if the deadline has
  // passed; Unavailable after Drain(); InvalidArgument for a priority out of range, a batch larger
  // than EngineOptions::max_batch_size, and inputs that the model cannot take.
  absl::StatusOr<uint64_t> Submit(TensorRequest request);

  // Ends a request that waits with Cancelled. A pass that runs is interrupted only when nobody
  // waits for any of its requests, by a cancellation or a deadline, and the model asks for that.
  void Cancel(uint64_t id);

  void Drain() override;
  bool WaitUntilIdle(TimePoint deadline) override;
  EngineState state() const override;
  std::optional<std::chrono::milliseconds> step_age() const override { return clock_.age(); }

 private:
  struct Waiting {
    uint64_t id;
    TensorRequest request;
    TimePoint submitted;
  };
  using WaitingList = std::vector<Waiting>;
  using Results = absl::StatusOr<std::vector<TensorModel::Outputs>>;

  // What the thread has to do next.
  struct Work {
    WaitingList batch, expired, cancelled;
    bool closed = false;
  };

  absl::Status CheckRows(const TensorRequest& request) const;
  absl::Status CheckRoom() const ABSL_LOCKS_EXCLUDED(mutex_);
  void Loop();
  Work Take() ABSL_LOCKS_EXCLUDED(mutex_);
  WaitingList Remove(const std::vector<uint64_t>& ids) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasNews() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return has_news_; }
  bool IsIdle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return num_in_flight_ == 0; }

  void RunBatch(WaitingList batch);
  Results RunModel(std::span<const Waiting> batch);
  // Whether anybody waits for the pass that runs.
  bool IsWanted();
  // Ok if somebody waits for this one.
  absl::Status WhyUnwanted(const Waiting& one) const ABSL_LOCKS_EXCLUDED(mutex_);
  // Ends the requests of a pass that came to `results`. If it has failed, it is tried again in
  // halves: beside one request at fault, n others need 2 log2(n) more passes, or 2 n if all are.
  void Answer(std::span<Waiting> batch, Results results, TimePoint start);
  void RunAgain(std::span<Waiting> batch, TimePoint start);
  void End(Waiting one, absl::Status status, TensorModel::Outputs outputs, TimePoint start);
  void EndExpired(WaitingList list);
  void EndAll(WaitingList list, const absl::Status& status);
  void Publish();

  const std::unique_ptr<TensorModel> model_;
  const EngineOptions options_;
  EngineObserver& observer_;
  StepClock clock_;
  // The thread's.
  EngineState published_;
  std::span<const Waiting> running_;  // what the model has now
  absl::Status lost_;                 // why the model is, if it is

  mutable absl::Mutex mutex_;
  BatchQueue queue_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, Waiting> waiting_ ABSL_GUARDED_BY(mutex_);  // by id
  std::vector<uint64_t> cancelled_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  int num_in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  bool has_news_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;

  std::thread thread_;  // uses all of the above
};

}  // namespace evaserve
