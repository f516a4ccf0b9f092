#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/model.h"
#include "server/engine/active_request.h"
#include "server/engine/deadlines.h"
#include "server/engine/engine.h"
#include "server/engine/mailbox.h"
#include "server/engine/observer.h"
#include "server/engine/scheduler.h"
#include "server/engine/step_clock.h"

namespace evaserve {

// What the engine's thread does: it takes requests from the mailbox and steps the model until the
// mailbox is closed. Lives on that thread; the model is its own while Run() goes on.
class StepLoop {
 public:
  // All of them must outlive this.
  StepLoop(Model& model, const EngineOptions& options, EngineObserver& observer, Mailbox& mailbox);

  // Returns when the mailbox is closed and everything in flight has ended with Unavailable.
  void Run();

  // How long the step that is going on has taken so far; nothing if there is none. For any thread.
  std::optional<std::chrono::milliseconds> step_age() const { return clock_.age(); }

 private:
  // What comes in.
  void Receive(Mailbox::Mail mail);
  void EndExpired(TimePoint now);
  void AdmitWaiting(TimePoint now);
  // The limit on a client's silence: it begins when all that came of a prompt has been taken in.
  void WatchForPieces(const ActiveRequest& request, TimePoint now);
  TimePoint NextDeadline() const;

  // One step; false if there was nothing to do.
  bool RunStep(TimePoint now);
  void GatherItems(std::span<const StepPiece> pieces, TimePoint now);
  // Every run of the model goes through this, for the clock.
  absl::StatusOr<std::vector<StepResult>> RunModel(std::span<const StepItem> items);
  void StepOneByOne(const absl::Status& status);
  void LoseModel(const absl::Status& status);
  void TakeResult(ActiveRequest& request, StepResult result, TimePoint now);

  // What goes out.
  void End(RequestId id, absl::Status status, TimePoint now);
  void EndAll(const absl::Status& status);
  void Publish();
  EngineState CurrentState() const;

  Model& model_;
  const std::function<void(const absl::Status&)> on_model_lost_;
  EngineObserver& observer_;
  Mailbox& mailbox_;
  Scheduler scheduler_;
  absl::flat_hash_map<RequestId, std::unique_ptr<ActiveRequest>> requests_;
  Deadlines deadlines_;
  Deadlines queue_deadlines_;  // until when those that wait must be admitted
  Deadlines piece_deadlines_;  // until when more must come of a prompt in pieces
  const std::chrono::milliseconds max_queue_time_;
  const std::chrono::milliseconds max_piece_wait_;
  const OverloadStatus overload_status_;
  int64_t waiting_tokens_ = 0;

  // The step that is going on: the model's items, and whose each is.
  std::vector<StepItem> items_;
  std::vector<ActiveRequest*> batch_;
  bool states_are_known_ = true;  // not after a step that ended for lack of memory halfway
  StepStats stats_;
  StepClock clock_;

  EngineState published_;
  int num_ended_ = 0;  // since the last Publish()
};

}  // namespace evaserve
