#include "tests/fakes/fake_model.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

constexpr double kLikelyProbability = 0.5;

TokenId LetterFor(std::span<const TokenId> history) {
  uint32_t hash = 2166136261u;
  for (TokenId token : history) hash = (hash ^ static_cast<uint32_t>(token)) * 16777619u;
  return FakeTokenizer::kFirstByte + 'a' + static_cast<TokenId>(hash >> 8) % 26;
}

}  // namespace

void FakeModelControl::Hold() {
  absl::MutexLock lock(&mutex_);
  holding_ = true;
  num_allowed_ = 0;
}

void FakeModelControl::AllowSteps(int count) {
  absl::MutexLock lock(&mutex_);
  num_allowed_ += count;
}

void FakeModelControl::Release() {
  absl::MutexLock lock(&mutex_);
  holding_ = false;
}

void FakeModelControl::WaitUntilHeld() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&step_waits_));
}

void FakeModelControl::WaitForSteps(int count) {
  auto enough = [this, count]()
                    ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return num_ended_ >= count; };
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&enough));
}

void FakeModelControl::FailIf(FailureRule rule) {
  absl::MutexLock lock(&mutex_);
  failure_rule_ = std::move(rule);
}

void FakeModelControl::SetStepTime(std::chrono::milliseconds step_time) {
  absl::MutexLock lock(&mutex_);
  step_time_ = step_time;
}

int FakeModelControl::live_sequences() const {
  absl::MutexLock lock(&mutex_);
  return live_sequences_;
}

std::vector<FakeModelControl::StepPieces> FakeModelControl::steps() const {
  absl::MutexLock lock(&mutex_);
  return steps_;
}

void FakeModelControl::Pass() {
  auto may_pass = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !holding_ || num_allowed_ > 0;
  };
  std::chrono::milliseconds step_time;
  {
    absl::MutexLock lock(&mutex_);
    step_waits_ = !may_pass();
    mutex_.Await(absl::Condition(&may_pass));
    step_waits_ = false;
    if (holding_) --num_allowed_;
    step_time = step_time_;
  }
  std::this_thread::sleep_for(step_time);
}

absl::Status FakeModelControl::Judge(std::span<const TokenId> history) const {
  absl::MutexLock lock(&mutex_);
  return failure_rule_ ? failure_rule_(history) : absl::OkStatus();
}

void FakeModelControl::CountSequence(int change) {
  absl::MutexLock lock(&mutex_);
  live_sequences_ += change;
}

void FakeModelControl::OnStepFailed() {
  absl::MutexLock lock(&mutex_);
  ++num_ended_;
}

void FakeModelControl::OnStepDone(StepPieces pieces) {
  absl::MutexLock lock(&mutex_);
  ++num_ended_;
  steps_.push_back(std::move(pieces));
}

class FakeSequence final : public Sequence {
 public:
  explicit FakeSequence(FakeModel& model) : model_(model) { model_.control_->CountSequence(1); }

  ~FakeSequence() override {
    model_.free_pages_ += pages;
    model_.control_->CountSequence(-1);
  }

  int64_t length() const override { return static_cast<int64_t>(history.size()); }

  std::vector<TokenId> history;
  int pages = 0;
  size_t reserved_tokens = 0;

 private:
  FakeModel& model_;
};

namespace {

FakeSequence& AsFake(Sequence& sequence) { return static_cast<FakeSequence&>(sequence); }

int CeilDiv(int64_t a, int64_t b) { return static_cast<int>((a + b - 1) / b); }

}  // namespace

FakeModel::FakeModel(Options options)
    : options_(std::move(options)), free_pages_(options_.total_pages) {
  info_.architecture = "fake";
  info_.vocab_size = FakeTokenizer::kVocabSize;
  info_.hidden_size = 3;
  info_.num_layers = 1;
  info_.num_heads = 1;
  info_.window = options_.window;
  info_.chunk = options_.chunk;
  info_.max_seq_len = options_.max_seq_len;
  info_.eos_tokens = {FakeTokenizer::kEos};
}

FakeModel::~FakeModel() = default;

float FakeModel::LikelyLogprob() { return static_cast<float>(std::log(kLikelyProbability)); }

float FakeModel::UnlikelyLogprob() {
  return static_cast<float>(std::log((1 - kLikelyProbability) / (FakeTokenizer::kVocabSize - 1)));
}

std::unique_ptr<Sequence> FakeModel::NewSequence() { return std::make_unique<FakeSequence>(*this); }

int FakeModel::TokensToBoundary(const Sequence& sequence) const {
  return options_.window - static_cast<int>(sequence.length() % options_.window);
}

// Once the windows that `length` fills are folded.
int64_t FakeModel::SlotsAt(int64_t length) const {
  return length / options_.window * (options_.window / options_.chunk) + length % options_.window;
}

int FakeModel::PagesFor(int64_t length) const {
  int64_t slots = SlotsAt(length);
  if (length >= options_.window) {
    const int64_t last_full = length / options_.window * options_.window;
    slots = std::max(slots, SlotsAt(last_full - options_.window) + options_.window);
  }
  return CeilDiv(slots, options_.page_slots);
}

StatePool FakeModel::state_pool() const {
  return {.page_bytes = 64, .total_pages = options_.total_pages, .free_pages = free_pages_};
}

absl::Status FakeModel::Reserve(Sequence& sequence, int num_tokens) {
  FakeSequence& fake = AsFake(sequence);
  const int needed = CeilDiv(SlotsAt(fake.length()) + num_tokens, options_.page_slots) - fake.pages;
  if (needed > free_pages_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no page for ", num_tokens, " tokens, ", free_pages_, " pages are free"));
  }
  if (needed > 0) {
    fake.pages += needed;
    free_pages_ -= needed;
  }
  fake.reserved_tokens = num_tokens;
  return absl::OkStatus();
}

absl::Status FakeModel::CheckItem(const StepItem& item) const {
  const FakeSequence& sequence = AsFake(*item.sequence);
  const int64_t num_tokens = static_cast<int64_t>(item.tokens.size());
  if (num_tokens < 1) return absl::InvalidArgumentError("no tokens");
  if (num_tokens > TokensToBoundary(sequence)) {
    return absl::InvalidArgumentError(absl::StrCat(num_tokens, " tokens cross a boundary"));
  }
  if (sequence.length() + num_tokens > options_.max_seq_len) {
    return absl::InvalidArgumentError("sequence past max_seq_len");
  }
  for (TokenId token : item.tokens) {
    if (token >= 0 && token < info_.vocab_size) continue;
    return absl::InvalidArgumentError(absl::StrCat("token ", token));
  }
  if (!item.targets.empty() && item.targets.size() != item.tokens.size()) {
    return absl::InvalidArgumentError("as many targets as tokens, or none");
  }
  if (item.all_hidden || item.all_logits) return absl::UnimplementedError("all_hidden, all_logits");
  if (sequence.reserved_tokens < item.tokens.size()) {
    return absl::FailedPreconditionError("no reservation");
  }
  return absl::OkStatus();
}

absl::Status FakeModel::Check(std::span<const StepItem> items) const {
  std::set<const Sequence*> sequences;
  for (const StepItem& item : items) {
    if (!sequences.insert(item.sequence).second) {
      return absl::InvalidArgumentError("the same sequence twice");
    }
    if (absl::Status status = CheckItem(item); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status FakeModel::Judge(std::span<const StepItem> items) const {
  for (const StepItem& item : items) {
    std::vector<TokenId> history = AsFake(*item.sequence).history;
    history.insert(history.end(), item.tokens.begin(), item.tokens.end());
    if (absl::Status status = control_->Judge(history); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<StepResult>> FakeModel::Step(std::span<const StepItem> items) {
  control_->Pass();
  absl::Status status = Check(items);
  if (status.ok()) status = Judge(items);
  if (!status.ok()) {
    control_->OnStepFailed();
    return status;
  }
  std::vector<StepResult> results;
  FakeModelControl::StepPieces pieces;
  for (const StepItem& item : items) {
    pieces.push_back({item.sequence->length(), static_cast<int>(item.tokens.size())});
    results.push_back(Advance(item));
  }
  control_->OnStepDone(std::move(pieces));
  return results;
}

StepResult FakeModel::Advance(const StepItem& item) {
  FakeSequence& sequence = AsFake(*item.sequence);
  StepResult result;
  if (item.sum_hidden) result.hidden_sum.resize(info_.hidden_size);
  for (size_t i = 0; i < item.tokens.size(); ++i) {
    if (item.sum_hidden) {
      result.hidden_sum[0] += static_cast<float>(item.tokens[i]);
      result.hidden_sum[1] += static_cast<float>(sequence.length());
      result.hidden_sum[2] += 1;
    }
    sequence.history.push_back(item.tokens[i]);
    if (item.targets.empty()) continue;
    const bool is_likely = item.targets[i] == NextToken(sequence.history);
    result.target_logprobs.push_back(is_likely ? LikelyLogprob() : UnlikelyLogprob());
  }
  if (item.sampler != nullptr) result.sampled = Sample(sequence.history, *item.sampler);
  sequence.reserved_tokens = 0;
  const int surplus = sequence.pages - CeilDiv(SlotsAt(sequence.length()), options_.page_slots);
  sequence.pages -= surplus;
  free_pages_ += surplus;
  return result;
}

TokenId FakeModel::NextToken(std::span<const TokenId> history) const {
  return options_.next_token ? options_.next_token(history) : LetterFor(history);
}

SampledToken FakeModel::Sample(std::span<const TokenId> history, Sampler& sampler) const {
  std::vector<float> logits(info_.vocab_size, UnlikelyLogprob());
  logits[NextToken(history)] = LikelyLogprob();
  return sampler.Sample(logits);
}

std::function<TokenId(std::span<const TokenId>)> Saying(std::string text, size_t prompt_tokens) {
  return [text = std::move(text), prompt_tokens](std::span<const TokenId> history) -> TokenId {
    if (history.size() < prompt_tokens) return FakeTokenizer::kFirstByte;
    const size_t position = history.size() - prompt_tokens;
    if (position >= text.size()) return FakeTokenizer::kEos;
    return FakeTokenizer::kFirstByte + static_cast<uint8_t>(text[position]);
  };
}

}  // namespace evaserve
