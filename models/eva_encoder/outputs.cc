#include "models/eva_encoder/outputs.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "models/token_filters.h"

namespace evaserve {
namespace {

constexpr size_t kHiddenState = 0, kEmbedding = 1;
constexpr size_t kLogits = 2, kTopTokens = 3, kTopLogprobs = 4;  // with a masked-LM head
constexpr size_t kTopWords = 5;                                  // and with text
constexpr TokenLogprob kNoGuess = {-1, -std::numeric_limits<float>::infinity()};
// Rows that go through the masked-LM head together: the vocabulary is much wider than the layers.
constexpr size_t kRowsAtOnce = 256;

bool IsWanted(const OutputTensor& output) { return !output.shape.empty(); }

int64_t NumElements(const OutputTensor& output) {
  if (!IsWanted(output)) return 0;
  int64_t elements = 1;
  for (int64_t size : output.shape) elements *= size;
  return elements;
}

TensorType TypeOf(size_t output) {
  if (output == kTopTokens) return TensorType::kInt64;
  return output == kTopWords ? TensorType::kBytes : TensorType::kFp32;
}

template <typename T>
void Append(T value, std::string& data) {
  data.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

int64_t NumGuesses(const EncoderTask& task) {
  return std::ssize(task.rows.lengths) * task.masks.columns * task.masks.most;
}

bool WantsGuesses(const EncoderTask& task) {
  return task.outputs.size() > kTopTokens &&
         std::any_of(task.outputs.begin() + kTopTokens, task.outputs.end(), IsWanted);
}

// Where row number `row` of an output begins, all its dimensions but the last counted as one.
float* RowOf(OutputTensor& output, int64_t row) {
  return reinterpret_cast<float*>(output.data.data()) + row * output.shape.back();
}

}  // namespace

std::vector<TensorSpec> EncoderOutputs::specs() const {
  std::vector<TensorSpec> specs;
  const auto add = [&](const char* name, std::vector<int64_t> shape) {
    specs.push_back({.name = name, .type = TypeOf(specs.size()), .shape = std::move(shape)});
  };
  add("last_hidden_state", {-1, -1, config().size});
  add("embedding", {-1, config().size});
  if (!config().has_masked_lm_head) return specs;
  add("logits", {-1, -1, config().vocab_size});
  add("top_tokens", {-1, -1, -1});
  add("top_logprobs", {-1, -1, -1});
  if (text_ != nullptr) add("top_words", {-1, -1, -1});
  return specs;
}

void EncoderOutputs::Shape(const TensorModel::Inputs& inputs, EncoderTask& task) const {
  const auto num_rows = static_cast<int64_t>(task.rows.lengths.size());
  const int64_t longest = task.rows.longest;
  std::vector<std::vector<int64_t>> shapes = {{num_rows, longest, config().size},
                                              {num_rows, config().size}};
  if (config().has_masked_lm_head) {
    shapes.push_back({num_rows, longest, config().vocab_size});
    const size_t num_outputs = text_ == nullptr ? kTopWords : kTopWords + 1;
    shapes.resize(num_outputs, {num_rows, task.masks.columns, task.masks.most});
  }
  task.outputs.resize(shapes.size());
  for (size_t i = 0; i < shapes.size(); ++i) {
    if (inputs.Wants(i)) task.outputs[i].shape = std::move(shapes[i]);
  }
}

int64_t EncoderOutputs::MaxBytes(const EncoderTask& task) const {
  int64_t bytes = 0;
  for (size_t i = 0; i < task.outputs.size(); ++i) {
    const int64_t element_bytes =
        i == kTopWords ? sizeof(uint32_t) + text_->max_word_bytes() : ElementBytes(TypeOf(i));
    bytes += NumElements(task.outputs[i]) * element_bytes;
  }
  if (WantsGuesses(task)) bytes += NumGuesses(task) * static_cast<int64_t>(sizeof(TokenLogprob));
  return bytes;
}

void EncoderOutputs::Allocate(EncoderTask& task) const {
  for (size_t i = 0; i < std::min(task.outputs.size(), kTopTokens); ++i) {
    task.outputs[i].data.resize(NumElements(task.outputs[i]) * sizeof(float));
  }
  if (!WantsGuesses(task)) return;
  task.guesses.assign(NumGuesses(task), kNoGuess);
}

void EncoderOutputs::WriteGuesses(EncoderTask& task) const {
  for (size_t i = kTopTokens; i < task.outputs.size(); ++i) {
    OutputTensor& output = task.outputs[i];
    if (!IsWanted(output)) continue;
    for (const TokenLogprob& guess : task.guesses) {
      if (i == kTopTokens) Append(int64_t{guess.token}, output.data);
      if (i == kTopLogprobs) Append(guess.logprob, output.data);
      if (i == kTopWords) AppendBytesElement(text_->Word(guess.token), output.data);
    }
  }
}

void EncoderOutputs::Store(std::span<const EncoderRow> rows, const float* hidden) {
  const int64_t size = config().size;
  std::vector<HeadRow> through_head;
  for (const EncoderRow& row : rows) {
    StoreStates(row, hidden);
    if (config().has_masked_lm_head) {
      AppendLogits(row, hidden, through_head);
      AppendMasks(row, hidden, through_head);
    }
    hidden += std::ssize(row.tokens) * size;
  }
  for (std::span<const HeadRow> left = through_head; !left.empty();) {
    const auto some = left.first(std::min(left.size(), kRowsAtOnce));
    RunHead(some);
    left = left.subspan(some.size());
  }
}

void EncoderOutputs::StoreStates(const EncoderRow& row, const float* hidden) {
  OutputTensor& states = row.task->outputs[kHiddenState];
  OutputTensor& embedding = row.task->outputs[kEmbedding];
  const int size = config().size;
  const size_t length = row.tokens.size();
  if (IsWanted(states)) {
    std::memcpy(RowOf(states, row.index * row.task->rows.longest), hidden,
                length * size * sizeof(float));
  }
  if (IsWanted(embedding)) {
    MeanOfRows(hidden, 1, static_cast<int>(length), size, RowOf(embedding, row.index));
  }
}

void EncoderOutputs::AppendLogits(const EncoderRow& row, const float* hidden,
                                  std::vector<HeadRow>& to) const {
  OutputTensor& logits = row.task->outputs[kLogits];
  if (!IsWanted(logits)) return;
  const int64_t begin = row.index * row.task->rows.longest;
  for (int64_t i = 0; i < std::ssize(row.tokens); ++i) {
    to.push_back({.hidden = hidden + i * config().size, .logits = RowOf(logits, begin + i)});
  }
}

void EncoderOutputs::AppendMasks(const EncoderRow& row, const float* hidden,
                                 std::vector<HeadRow>& to) const {
  EncoderTask& task = *row.task;
  const MaskedPlaces& masks = task.masks;
  if (task.guesses.empty()) return;
  for (int64_t i = row.index * masks.columns; i < (row.index + 1) * masks.columns; ++i) {
    if (masks.positions[i] < 0) continue;
    to.push_back({.hidden = hidden + int64_t{masks.positions[i]} * config().size,
                  .guesses = {task.guesses.data() + i * masks.most,
                              static_cast<size_t>(masks.top_k[row.index])}});
  }
}

void EncoderOutputs::RunHead(std::span<const HeadRow> rows) {
  const int64_t size = config().size, vocab_size = config().vocab_size;
  float* hidden = hidden_.Get(rows.size() * size);
  float* logits = logits_.Get(rows.size() * vocab_size);
  for (size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(hidden + i * size, rows[i].hidden, size * sizeof(float));
  }
  network_.ComputeLogits(hidden, static_cast<int>(rows.size()), logits);
  for (size_t i = 0; i < rows.size(); ++i) {
    Use({logits + i * vocab_size, static_cast<size_t>(vocab_size)}, rows[i]);
  }
}

void EncoderOutputs::Use(std::span<const float> logits, const HeadRow& row) {
  if (row.logits != nullptr) std::memcpy(row.logits, logits.data(), logits.size_bytes());
  if (row.guesses.empty()) return;
  std::ranges::copy(MostLikely(logits, row.guesses.size(), LogSumExp(logits), ranking_),
                    row.guesses.begin());
}

}  // namespace evaserve
