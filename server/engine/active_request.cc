#include "server/engine/active_request.h"

#include <chrono>
#include <cmath>
#include <utility>

#include "server/engine/durations.h"

namespace evaserve {

ActiveRequest::ActiveRequest(RequestId id, Request request, int64_t max_new_tokens,
                             const Model& model, TimePoint submitted)
    : id_(id),
      request_(std::move(request)),
      max_new_tokens_(max_new_tokens),
      submitted_(submitted),
      // Nobody asks what comes after the last token of a score.
      num_unfed_(request_.task == Task::kScore ? 1 : 0) {
  if (request_.task == Task::kGenerate) {
    sampler_.emplace(request_.generate.sampling);
    sampler_->Observe(request_.tokens);
    generation_.emplace(request_.generate, max_new_tokens, model.info().eos_tokens,
                        model.tokenizer());
  }
}

int ActiveRequest::tokens_at_hand() const {
  return static_cast<int>(std::ssize(request_.tokens) - num_unfed_ - position_);
}

void ActiveRequest::Append(std::span<const TokenId> tokens) {
  request_.tokens.insert(request_.tokens.end(), tokens.begin(), tokens.end());
  request_.tokens_to_come -= std::ssize(tokens);
  if (sampler_) sampler_->Observe(tokens);
}

int64_t ActiveRequest::max_length() const {
  // The last new token is not fed back.
  return request_.task == Task::kGenerate ? prompt_tokens() + max_new_tokens_ - 1
                                          : prefill_tokens();
}

StepItem ActiveRequest::NextItem(int num_tokens) {
  StepItem item;
  item.sequence = sequence_.get();
  if (IsPrefilled()) {
    step_tokens_ = 0;
    item.tokens = {&last_token_, 1};
    item.sampler = &*sampler_;
    return item;
  }
  step_tokens_ = num_tokens;
  item.tokens = std::span(request_.tokens).subspan(position_, num_tokens);
  switch (request_.task) {
    case Task::kGenerate:
      if (position_ + num_tokens == prefill_tokens()) item.sampler = &*sampler_;
      break;
    case Task::kScore:
      item.targets = std::span(request_.tokens).subspan(position_ + 1, num_tokens);
      break;
    case Task::kEmbed:
      item.sum_hidden = true;
      break;
    case Task::kInfer:  // never comes here
      break;
  }
  return item;
}

void ActiveRequest::OnStepStart(TimePoint now, EngineObserver& observer) {
  if (first_step_) return;
  first_step_ = now;
  observer.OnFirstStep(Between(submitted_, now));
}

ActiveRequest::Outcome ActiveRequest::TakeResult(StepResult result, TimePoint now,
                                                 EngineObserver& observer) {
  position_ += step_tokens_;
  logprobs_.insert(logprobs_.end(), result.target_logprobs.begin(), result.target_logprobs.end());
  AddHidden(result.hidden_sum);
  if (result.sampled) return TakeToken(*std::move(result.sampled), now, observer);
  const bool done = IsPrefilled() && request_.task != Task::kGenerate;
  return done ? Outcome::kDone : Outcome::kGoesOn;
}

ActiveRequest::Outcome ActiveRequest::TakeToken(SampledToken sample, TimePoint now,
                                                EngineObserver& observer) {
  ObserveToken(now, observer);
  last_token_ = sample.chosen.token;
  const Generation::Output output = generation_->Push(std::move(sample));
  const bool wants_more = request_.sink->OnTokens(output.text, {&output.token, 1});
  if (generation_->finish_reason() != FinishReason::kNone) return Outcome::kDone;
  return wants_more ? Outcome::kGoesOn : Outcome::kPauses;
}

void ActiveRequest::ObserveToken(TimePoint now, EngineObserver& observer) {
  if (first_token_) {
    observer.OnNextToken(Between(last_token_time_, now));
  } else {
    first_token_ = now;
    observer.OnFirstToken(Between(submitted_, now), prompt_tokens());
  }
  last_token_time_ = now;
}

void ActiveRequest::AddHidden(std::span<const float> hidden_sum) {
  if (hidden_sum_.empty()) hidden_sum_.resize(hidden_sum.size());
  for (size_t i = 0; i < hidden_sum.size(); ++i) hidden_sum_[i] += hidden_sum[i];
}

std::vector<float> ActiveRequest::Embedding() const {
  double scale = 1.0 / static_cast<double>(prefill_tokens());
  if (request_.normalize) {
    double square = 0;
    for (double value : hidden_sum_) square += value * value;
    scale = square > 0 ? 1.0 / std::sqrt(square) : 0.0;
  }
  std::vector<float> embedding;
  embedding.reserve(hidden_sum_.size());
  for (double value : hidden_sum_) embedding.push_back(static_cast<float>(value * scale));
  return embedding;
}

Completion ActiveRequest::MakeCompletion(absl::Status status, TimePoint now) {
  Completion completion;
  completion.usage.prompt_tokens = std::ssize(request_.tokens);
  completion.timings.queue = Between(submitted_, first_step_.value_or(now));
  if (first_token_) completion.timings.first_token = Between(submitted_, *first_token_);
  completion.timings.total = Between(submitted_, now);
  if (generation_) {
    completion.seed = sampler_->seed();
    completion.usage.new_tokens = generation_->new_tokens();
    completion.usage.new_bytes = generation_->new_bytes();
  }
  if (status.ok()) {
    if (generation_) completion.finish_reason = generation_->finish_reason();
    if (generation_) completion.stop = generation_->stop();
    completion.logprobs = std::move(logprobs_);
    if (request_.task == Task::kEmbed) completion.embedding = Embedding();
  }
  completion.status = std::move(status);
  return completion;
}

void ActiveRequest::End(absl::Status status, TimePoint now, EngineObserver& observer) {
  sequence_.reset();
  Completion completion = MakeCompletion(std::move(status), now);
  observer.OnDone(request_.task, completion);
  request_.sink->OnDone(std::move(completion));
}

}  // namespace evaserve
