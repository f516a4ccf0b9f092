#include "models/eva_encoder/outputs.h"

#include <algorithm>
#include <cstring>

namespace evaserve {
namespace {

constexpr int kHiddenState = 0, kEmbedding = 1, kLogits = 2;
// Rows that go through the masked-LM head together: the vocabulary is much wider than the layers.
constexpr int64_t kRowsAtOnce = 256;

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

std::vector<std::vector<int64_t>> EncoderOutputShapes(const EncoderRows& rows,
                                                      const EvaEncoderConfig& config) {
  const auto num_rows = static_cast<int64_t>(rows.lengths.size());
  const int64_t longest = rows.longest();
  std::vector<std::vector<int64_t>> shapes = {{num_rows, longest, config.size},
                                              {num_rows, config.size}};
  if (config.has_masked_lm_head) shapes.push_back({num_rows, longest, config.vocab_size});
  return shapes;
}

void EncoderOutputs::Store(std::span<const EncoderRow> rows, const float* hidden) {
  const int size = network_.config().size;
  const float* x = hidden;
  for (const EncoderRow& row : rows) {
    TensorModel::Outputs& outputs = row.task->outputs;
    const auto length = static_cast<int>(row.tokens.size());
    const int64_t longest = outputs[kHiddenState].shape[1];
    std::memcpy(RowOf(outputs[kHiddenState], row.index * longest), x,
                row.tokens.size() * size * sizeof(float));
    MeanOfRows(x, 1, length, size, RowOf(outputs[kEmbedding], row.index));
    x += int64_t{length} * size;
  }
  if (network_.config().has_masked_lm_head) StoreLogits(rows, hidden);
}

void EncoderOutputs::StoreLogits(std::span<const EncoderRow> rows, const float* hidden) {
  const int64_t size = network_.config().size, vocab_size = network_.config().vocab_size;
  std::vector<float*> places;  // of each token
  for (const EncoderRow& row : rows) {
    OutputTensor& output = row.task->outputs[kLogits];
    for (size_t i = 0; i < row.tokens.size(); ++i) {
      places.push_back(RowOf(output, row.index * output.shape[1] + static_cast<int64_t>(i)));
    }
  }
  const int64_t num_tokens = std::ssize(places);
  float* logits = logits_.Get(std::min(num_tokens, kRowsAtOnce) * vocab_size);
  for (int64_t begin = 0; begin < num_tokens; begin += kRowsAtOnce) {
    const int64_t count = std::min(num_tokens - begin, kRowsAtOnce);
    network_.ComputeLogits(hidden + begin * size, static_cast<int>(count), logits);
    for (int64_t i = 0; i < count; ++i) {
      std::memcpy(places[begin + i], logits + i * vocab_size, vocab_size * sizeof(float));
    }
  }
}

}  // namespace evaserve
