#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "models/model.h"
#include "server/engine/generation.h"
#include "server/engine/observer.h"
#include "server/engine/request.h"
#include "server/engine/scheduler.h"

namespace evaserve {

// One accepted request on its way through the engine: what the model gets next, and what the
// results mean for the client. Not thread-safe.
class ActiveRequest {
 public:
  // `request` is valid for `model`, which must outlive this; `max_new_tokens` is what it can get.
  ActiveRequest(RequestId id, Request request, int64_t max_new_tokens, const Model& model,
                TimePoint submitted);

  ActiveRequest(const ActiveRequest&) = delete;
  ActiveRequest& operator=(const ActiveRequest&) = delete;

  RequestId id() const { return id_; }
  TimePoint deadline() const { return request_.deadline; }
  TimePoint submitted() const { return submitted_; }
  int priority() const { return request_.priority; }
  int64_t prompt_tokens() const { return request_.num_tokens(); }

  // Tokens to feed before the first new token, or before the request is done.
  int64_t prefill_tokens() const { return prompt_tokens() - num_unfed_; }

  // How many of those that are left to feed have come.
  int tokens_at_hand() const;
  int64_t tokens_to_come() const { return request_.tokens_to_come; }

  // Whether it rests until its client sends more of the prompt.
  bool awaits_piece() const {
    return has_started() && tokens_to_come() > 0 && tokens_at_hand() <= 0;
  }

  // The next tokens of a prompt that comes in pieces.
  void Append(std::span<const TokenId> tokens);

  // The most tokens that its state will ever see.
  int64_t max_length() const;

  // Gives it a state, which lives until End().
  void Start(std::unique_ptr<Sequence> sequence) { sequence_ = std::move(sequence); }
  bool has_started() const { return sequence_ != nullptr; }
  Sequence& sequence() const { return *sequence_; }

  // What to do with its next `num_tokens` tokens; valid until TakeResult().
  StepItem NextItem(int num_tokens);

  // A step with it starts.
  void OnStepStart(TimePoint now, EngineObserver& observer);

  enum class Outcome { kGoesOn, kPauses, kDone };

  // Takes the result of the step that NextItem() asked for and hands on what is new.
  Outcome TakeResult(StepResult result, TimePoint now, EngineObserver& observer);

  // Frees its state and tells the sink, and the observer before it, how it ended. The last call.
  void End(absl::Status status, TimePoint now, EngineObserver& observer);

 private:
  bool IsPrefilled() const { return position_ == prefill_tokens(); }
  Outcome TakeToken(SampledToken sample, TimePoint now, EngineObserver& observer);
  void ObserveToken(TimePoint now, EngineObserver& observer);
  void AddHidden(std::span<const float> hidden_sum);
  Completion MakeCompletion(absl::Status status, TimePoint now);
  std::vector<float> Embedding() const;

  const RequestId id_;
  Request request_;
  const int64_t max_new_tokens_;
  const TimePoint submitted_;
  const int num_unfed_;  // last tokens that the state need not see
  std::unique_ptr<Sequence> sequence_;
  int64_t position_ = 0;     // in request_.tokens
  int64_t step_tokens_ = 0;  // of them, in the step that is going on
  TokenId last_token_ = 0;   // of a generation
  std::optional<Sampler> sampler_;
  std::optional<Generation> generation_;
  std::vector<float> logprobs_;
  std::vector<double> hidden_sum_;
  std::optional<TimePoint> first_step_;
  std::optional<TimePoint> first_token_;
  TimePoint last_token_time_;
};

}  // namespace evaserve
