#include "models/eva_translation/translator.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "models/text/dictionary.h"

namespace evaserve {
namespace {

// What goes through the layers together: enough for the kernels, and memory that does not grow with
// the batch.
constexpr int kHypothesesPerPass = 128;
constexpr int kSourceTokensPerPass = 8192;

// logits - log(sum(exp(logits))), the sum in float64.
void LogSoftmax(float* row, int64_t size) {
  const float max = *std::max_element(row, row + size);
  double sum = 0;
  for (int64_t i = 0; i < size; ++i) sum += double{std::exp(row[i] - max)};
  const float normaliser = max + static_cast<float>(std::log(sum));
  for (int64_t i = 0; i < size; ++i) row[i] -= normaliser;
}

}  // namespace

int64_t MaxSlots(const BeamSearch::Options& search) {
  return int64_t{search.beam_size} * (search.max_length + 1);
}

int32_t Translator::SlotPool::Take() {
  if (free_.empty()) {
    free_.push_back(static_cast<int32_t>(num_users_.size()));
    num_users_.push_back(0);
  }
  const int32_t slot = free_.back();
  free_.pop_back();
  num_users_[slot] = 1;
  return slot;
}

void Translator::SlotPool::Share(std::span<const int32_t> slots) {
  for (const int32_t slot : slots) ++num_users_[slot];
}

void Translator::SlotPool::Release(std::span<const int32_t> slots) {
  for (const int32_t slot : slots) {
    if (--num_users_[slot] == 0) free_.push_back(slot);
  }
}

Translator::Translator(std::unique_ptr<EvaEncoderNetwork> encoder,
                       std::unique_ptr<TranslationDecoder> decoder, int target_vocab_size,
                       WorkerPool& workers)
    : encoder_(std::move(encoder)),
      decoder_(std::move(decoder)),
      vocab_size_(target_vocab_size),
      workers_(workers) {}

absl::StatusOr<std::vector<BeamSearch::Finished>> Translator::Run(
    std::span<const TranslationTask> tasks, const std::function<bool()>& is_wanted) {
  absl::StatusOr<std::vector<BeamSearch::Finished>> results = RunPasses(tasks, is_wanted);
  decoder_->GiveBackSlots(kSlotsKept);
  return results;
}

absl::StatusOr<std::vector<BeamSearch::Finished>> Translator::RunPasses(
    std::span<const TranslationTask> tasks, const std::function<bool()>& is_wanted) {
  std::vector<BeamSearch::Finished> results;
  while (!tasks.empty()) {
    const std::span<const TranslationTask> pass = NextPass(tasks);
    if (absl::Status status = Encode(pass); !status.ok()) return status;
    slots_ = {};
    std::vector<Sentence> sentences;
    for (const TranslationTask& task : pass) sentences.push_back({BeamSearch(task.search), {{}}});
    const auto is_live = [](const Sentence& sentence) { return !sentence.search.is_done(); };
    while (std::ranges::any_of(sentences, is_live)) {
      if (!is_wanted()) return absl::CancelledError("nobody waits for the translations");
      if (absl::Status status = Step(sentences); !status.ok()) return status;
    }
    for (const Sentence& sentence : sentences) results.push_back(sentence.search.Best());
    tasks = tasks.subspan(pass.size());
  }
  return results;
}

std::span<const TranslationTask> Translator::NextPass(std::span<const TranslationTask> tasks) {
  int64_t tokens = 0, hypotheses = 0, slots = 0;
  size_t count = 0;
  for (; count < tasks.size(); ++count) {
    tokens += std::ssize(tasks[count].source);
    hypotheses += tasks[count].search.beam_size;
    slots += MaxSlots(tasks[count].search);
    if (count > 0 &&
        (tokens > kSourceTokensPerPass || hypotheses > kHypothesesPerPass || slots > kMaxSlots)) {
      break;
    }
  }
  return tasks.first(count);
}

absl::Status Translator::Encode(std::span<const TranslationTask> tasks) {
  std::vector<TokenId> tokens;
  std::vector<int> lengths;
  for (const TranslationTask& task : tasks) {
    tokens.insert(tokens.end(), task.source.begin(), task.source.end());
    lengths.push_back(static_cast<int>(task.source.size()));
  }
  float* encoded = encoded_.Get(tokens.size() * encoder_->config().size);
  if (absl::Status status = encoder_->Run(tokens, lengths, encoded); !status.ok()) return status;
  decoder_->SetSources(encoded, lengths);
  return absl::OkStatus();
}

// One more token for every hypothesis.
absl::Status Translator::Step(std::span<Sentence> sentences) {
  std::vector<DecoderRow> rows;
  for (size_t i = 0; i < sentences.size(); ++i) {
    Sentence& sentence = sentences[i];
    const auto live = sentence.search.live();
    for (size_t j = 0; j < live.size(); ++j) {
      sentence.slots[j].push_back(slots_.Take());
      const std::vector<TokenId>& tokens = live[j].tokens;
      rows.push_back({.token = tokens.empty() ? Dictionary::kEos : tokens.back(),
                      .source = static_cast<int>(i),
                      .slots = sentence.slots[j]});
    }
  }
  float* logits = logits_.Get(rows.size() * vocab_size_);
  if (absl::Status status = decoder_->Step(rows, logits); !status.ok()) return status;
  TurnIntoLogProbs(static_cast<int>(rows.size()), logits);
  for (Sentence& sentence : sentences) {
    const size_t size = sentence.search.live().size() * vocab_size_;
    if (size > 0) Advance(sentence, {logits, size});
    logits += size;
  }
  return absl::OkStatus();
}

void Translator::Advance(Sentence& sentence, std::span<const float> log_probs) {
  sentence.search.Advance(log_probs);
  std::vector<std::vector<int32_t>> slots;
  for (const BeamSearch::Hypothesis& hypothesis : sentence.search.live()) {
    slots.push_back(sentence.slots[hypothesis.parent]);
    slots_.Share(slots.back());
  }
  for (const std::vector<int32_t>& old : sentence.slots) slots_.Release(old);
  sentence.slots = std::move(slots);
}

void Translator::TurnIntoLogProbs(int num_rows, float* logits) {
  workers_.Run(num_rows,
               [&](int row, int) { LogSoftmax(logits + row * vocab_size_, vocab_size_); });
}

}  // namespace evaserve
