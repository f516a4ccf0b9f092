#include "models/eva_encoder/outputs.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace evaserve {
namespace {

constexpr int kHiddenState = 0, kEmbedding = 1, kLogits = 2;
// Rows that go through the masked-LM head together: the vocabulary is much wider than the layers.
constexpr size_t kRowsAtOnce = 256;

bool IsWanted(const OutputTensor& output) { return !output.shape.empty(); }

int64_t BytesOf(const OutputTensor& output) {
  if (!IsWanted(output)) return 0;
  int64_t bytes = sizeof(float);
  for (int64_t size : output.shape) bytes *= size;
  return bytes;
}

// Where row number `row` of an output begins, all its dimensions but the last counted as one.
float* RowOf(OutputTensor& output, int64_t row) {
  return reinterpret_cast<float*>(output.data.data()) + row * output.shape.back();
}

}  // namespace

std::vector<TensorSpec> EncoderOutputSpecs(const EvaEncoderConfig& config) {
  const auto floats = [](const char* name, std::vector<int64_t> shape) {
    return TensorSpec{.name = name, .type = TensorType::kFp32, .shape = std::move(shape)};
  };
  std::vector<TensorSpec> specs = {floats("last_hidden_state", {-1, -1, config.size}),
                                   floats("embedding", {-1, config.size})};
  if (config.has_masked_lm_head) specs.push_back(floats("logits", {-1, -1, config.vocab_size}));
  return specs;
}

void ShapeOutputs(const TensorModel::Inputs& inputs, const EvaEncoderConfig& config,
                  EncoderTask& task) {
  const auto num_rows = static_cast<int64_t>(task.rows.lengths.size());
  const int64_t longest = task.rows.longest;
  std::vector<std::vector<int64_t>> shapes = {{num_rows, longest, config.size},
                                              {num_rows, config.size}};
  if (config.has_masked_lm_head) shapes.push_back({num_rows, longest, config.vocab_size});
  task.outputs.resize(shapes.size());
  for (size_t i = 0; i < shapes.size(); ++i) {
    if (inputs.Wants(i)) task.outputs[i].shape = std::move(shapes[i]);
  }
}

int64_t OutputBytes(const EncoderTask& task) {
  int64_t bytes = 0;
  for (const OutputTensor& output : task.outputs) bytes += BytesOf(output);
  return bytes;
}

void AllocateOutputs(EncoderTask& task) {
  for (OutputTensor& output : task.outputs) output.data.resize(BytesOf(output));
}

void EncoderOutputs::Store(std::span<const EncoderRow> rows, const float* hidden) {
  const int64_t size = network_.config().size;
  std::vector<HeadRow> through_head;
  for (const EncoderRow& row : rows) {
    StoreStates(row, hidden);
    if (network_.config().has_masked_lm_head) AppendLogits(row, hidden, through_head);
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
  const int size = network_.config().size;
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
    to.push_back({hidden + i * network_.config().size, RowOf(logits, begin + i)});
  }
}

void EncoderOutputs::RunHead(std::span<const HeadRow> rows) {
  const int64_t size = network_.config().size, vocab_size = network_.config().vocab_size;
  float* hidden = hidden_.Get(rows.size() * size);
  float* logits = logits_.Get(rows.size() * vocab_size);
  for (size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(hidden + i * size, rows[i].hidden, size * sizeof(float));
  }
  network_.ComputeLogits(hidden, static_cast<int>(rows.size()), logits);
  for (size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(rows[i].logits, logits + i * vocab_size, vocab_size * sizeof(float));
  }
}

}  // namespace evaserve
