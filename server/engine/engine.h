#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/model.h"
#include "server/engine/model_engine.h"
#include "server/engine/observer.h"
#include "server/engine/overload.h"
#include "server/engine/request.h"

namespace evaserve {

struct EngineOptions {
  // Tokens in one step, over all sequences. Bounds activation memory and how long a prompt can hold
  // up the sequences that are generating.
  int max_batch_tokens = 2048;
  // Sequences with a state at the same time.
  int max_running = 256;
  WaitingLimits waiting = {};
  // Tokens of one prompt or text, and new tokens of one generation; 0: the model's limits alone.
  int64_t max_prompt_tokens = 0;
  int64_t max_new_tokens = 0;
  // How long a request may wait for a place, and take in all; DeadlineExceeded after that. 0: as
  // long as its own deadline allows.
  std::chrono::milliseconds max_queue_time{0};
  std::chrono::milliseconds max_request_time{0};
  // How long a prompt that comes in pieces keeps its state while all that came of it has been taken
  // in and nothing more comes; DeadlineExceeded after that. 0: for ever.
  std::chrono::milliseconds max_piece_wait{60'000};
  // Of models that take tensors: the rows of one batch, which one request may not exceed either (0:
  // requests of any number of rows run one by one), and how long a request waits for company.
  int max_batch_size = 64;
  std::vector<int64_t> preferred_batch_sizes = {};  // ascending: these do not wait any longer
  std::chrono::microseconds max_queue_delay{0};
  // Called on the engine's thread when the model's device is lost: nothing will run any more.
  std::function<void(const absl::Status&)> on_model_lost = [](const absl::Status&) {};
};

// The caller's grip on a request in flight. Thread-safe; outliving the engine is allowed.
class RequestHandle {
 public:
  virtual ~RequestHandle() = default;

  // Ends the request with Cancelled and frees its state within one step. Does nothing after the
  // end.
  virtual void Cancel() = 0;

  // Lets a generation go on whose sink had returned false.
  virtual void Resume() = 0;

  // The next tokens of a prompt that comes in pieces. InvalidArgument, and nothing happens, for
  // more than Request::tokens_to_come in all or a token outside the vocabulary. Does nothing after
  // the end.
  virtual absl::Status Append(std::span<const TokenId> /*tokens*/) {
    return absl::InvalidArgumentError("the prompt has come whole");
  }
};

// Runs the requests of one model together, in steps of one flat batch: every step advances each
// generating sequence by a token and uses the rest of its token budget for prompts, cut at window
// boundaries. Requests are admitted first come first served, each when the pages that it can ever
// need are free, so a sequence that runs always finishes. A prompt that comes in pieces is admitted
// for its whole length, and what has come is taken in at once.
//
// Owns one thread. Thread-safe.
class Engine : public ModelEngine {
 public:
  // `observer` must outlive the engine.
  Engine(std::unique_ptr<Model> model, const EngineOptions& options, EngineObserver& observer);

  // Ends what is in flight with Unavailable.
  ~Engine() override;

  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  const ModelInfo& info() const;
  const Tokenizer& tokenizer() const;
  const EngineOptions& options() const;

  // Takes a request; never waits. On error the sink is not called.
  //
  // Errors: InvalidArgument, naming the field, for an empty prompt, bad options, or a request that
  // can never fit the model's length or the state pool; ResourceExhausted when too much is waiting;
  // DeadlineExceeded if the deadline has passed; Unavailable after Drain().
  absl::StatusOr<std::shared_ptr<RequestHandle>> Submit(Request request);

  // Takes all of `requests`, or none and returns an error of these, or InvalidArgument for more
  // than can ever run and wait together. The handles are in the order of the requests.
  absl::StatusOr<std::vector<std::shared_ptr<RequestHandle>>> SubmitAll(
      std::vector<Request> requests);

  void Drain() override;
  bool WaitUntilIdle(TimePoint deadline) override;
  EngineState state() const override;
  std::optional<std::chrono::milliseconds> step_age() const override;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace evaserve
