#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "models/model.h"
#include "tests/fakes/fake_tokenizer.h"

namespace evaserve {

// A test's grip on a FakeModel that an engine owns: it holds steps up, makes them fail, and tells
// what happened. Thread-safe; outlives the model.
class FakeModelControl {
 public:
  // One piece of a step: how long the sequence was, and how many tokens it got.
  struct Piece {
    int64_t length = 0;
    int num_tokens = 0;

    bool operator==(const Piece&) const = default;
  };
  using StepPieces = std::vector<Piece>;

  // Decides whether a step fails; asked for each sequence of it with the tokens that it will have
  // seen after the step. Called on the model's thread.
  using FailureRule = std::function<absl::Status(std::span<const TokenId> history)>;

  // Every step from now on waits for AllowSteps() or Release().
  void Hold();

  // Lets `count` of the held steps run.
  void AllowSteps(int count);

  // Ends Hold().
  void Release();

  // Waits until a step is held.
  void WaitUntilHeld();

  // Waits until `count` steps have ended since the beginning.
  void WaitForSteps(int count);

  void FailIf(FailureRule rule);

  // Every step takes this long from now on.
  void SetStepTime(std::chrono::milliseconds step_time);

  int live_sequences() const;
  std::vector<StepPieces> steps() const;  // that succeeded

 private:
  friend class FakeModel;
  friend class FakeSequence;

  void Pass();  // waits while held
  absl::Status Judge(std::span<const TokenId> history) const;
  void CountSequence(int change);
  void OnStepFailed();
  void OnStepDone(StepPieces pieces);

  mutable absl::Mutex mutex_;
  bool holding_ ABSL_GUARDED_BY(mutex_) = false;
  bool step_waits_ ABSL_GUARDED_BY(mutex_) = false;
  int num_allowed_ ABSL_GUARDED_BY(mutex_) = 0;
  int num_ended_ ABSL_GUARDED_BY(mutex_) = 0;
  int live_sequences_ ABSL_GUARDED_BY(mutex_) = 0;
  std::chrono::milliseconds step_time_ ABSL_GUARDED_BY(mutex_){0};
  FailureRule failure_rule_ ABSL_GUARDED_BY(mutex_);
  std::vector<StepPieces> steps_ ABSL_GUARDED_BY(mutex_);
};

// A model without weights, for tests of what lies above the models. It keeps the rules of
// models/model.h: pages, reservations, window boundaries, errors. It does not offer all_hidden and
// all_logits.
//
// The likely next token is a function of all tokens before, by default a letter that a hash of them
// picks; it has log-probability LikelyLogprob(), every other UnlikelyLogprob(). The final hidden
// state of a token is {token, position, 1}.
class FakeModel : public Model {
 public:
  struct Options {
    int window = 16;  // tokens, a multiple of chunk
    int chunk = 4;    // tokens
    int page_slots = 4;
    int total_pages = 10000;
    int64_t max_seq_len = 4096;
    // Instead of the hash.
    std::function<TokenId(std::span<const TokenId> history)> next_token = nullptr;
  };

  FakeModel() : FakeModel(Options()) {}
  explicit FakeModel(Options options);
  ~FakeModel() override;

  const std::shared_ptr<FakeModelControl>& control() const { return control_; }

  static float LikelyLogprob();
  static float UnlikelyLogprob();

  const ModelInfo& info() const override { return info_; }
  const Tokenizer& tokenizer() const override { return tokenizer_; }
  std::unique_ptr<Sequence> NewSequence() override;
  int TokensToBoundary(const Sequence& sequence) const override;
  int PagesFor(int64_t length) const override;
  StatePool state_pool() const override;
  absl::Status Reserve(Sequence& sequence, int num_tokens) override;
  absl::StatusOr<std::vector<StepResult>> Step(std::span<const StepItem> items) override;

 private:
  friend class FakeSequence;

  absl::Status Check(std::span<const StepItem> items) const;
  absl::Status CheckItem(const StepItem& item) const;
  absl::Status Judge(std::span<const StepItem> items) const;
  StepResult Advance(const StepItem& item);
  TokenId NextToken(std::span<const TokenId> history) const;
  SampledToken Sample(std::span<const TokenId> history, Sampler& sampler) const;
  int64_t SlotsAt(int64_t length) const;

  const Options options_;
  const FakeTokenizer tokenizer_;
  const std::shared_ptr<FakeModelControl> control_ = std::make_shared<FakeModelControl>();
  ModelInfo info_;
  int free_pages_;
};

// A next_token function that says `text` after a prompt of `prompt_tokens` tokens, then ends it.
std::function<TokenId(std::span<const TokenId>)> Saying(std::string text, size_t prompt_tokens);

}  // namespace evaserve
