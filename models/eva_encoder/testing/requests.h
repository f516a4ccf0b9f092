#pragma once

#include <algorithm>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "models/tensor_model.h"

namespace evaserve {

using TokenRows = std::vector<std::vector<int64_t>>;

// One request for an encoder, which keeps its tensors.
class EncoderRequest {
 public:
  // All of `columns` in every row, without lengths.
  EncoderRequest(std::vector<int64_t> ids, int64_t rows, int64_t columns) : ids_(std::move(ids)) {
    inputs_.resize(kNumInputs);
    inputs_[0] = {{rows, columns}, BytesOf(ids_)};
  }

  // With the length of each row, and `filler` after it.
  explicit EncoderRequest(const TokenRows& rows, int64_t filler = 1) {
    size_t longest = 0;
    for (const auto& row : rows) longest = std::max(longest, row.size());
    for (const auto& row : rows) {
      ids_.insert(ids_.end(), row.begin(), row.end());
      ids_.resize(ids_.size() + longest - row.size(), filler);
      lengths_.push_back(static_cast<int64_t>(row.size()));
    }
    const auto num_rows = static_cast<int64_t>(rows.size());
    inputs_.resize(kNumInputs);
    inputs_[0] = {{num_rows, static_cast<int64_t>(longest)}, BytesOf(ids_)};
    inputs_[1] = {{num_rows}, BytesOf(lengths_)};
  }

  explicit EncoderRequest(const std::vector<std::string>& texts) : inputs_(kNumInputs) {
    SetTexts(texts);
  }

  EncoderRequest(const EncoderRequest&) = delete;
  EncoderRequest& operator=(const EncoderRequest&) = delete;

  void SetLengths(std::vector<int64_t> lengths) {
    lengths_ = std::move(lengths);
    inputs_[1] = {{static_cast<int64_t>(lengths_.size())}, BytesOf(lengths_)};
  }

  // As many for each row; -1 for none.
  void SetMaskPositions(std::vector<int64_t> positions) {
    mask_positions_ = std::move(positions);
    const int64_t rows = inputs_[0].shape[0];
    inputs_[2] = {{rows, std::ssize(mask_positions_) / rows}, BytesOf(mask_positions_)};
  }

  // For each row.
  void SetTopK(std::vector<int32_t> top_k) {
    top_k_ = std::move(top_k);
    inputs_[3] = {{std::ssize(top_k_), 1}, BytesOf(top_k_)};
  }

  void SetTexts(const std::vector<std::string>& texts) {
    texts_.clear();
    for (const std::string& text : texts) AppendBytesElement(text, texts_);
    inputs_[4] = {{std::ssize(texts), 1}, texts_};
  }

  void RemoveTexts() { inputs_[4] = {}; }

  // By their places among the model's.
  void SetWantedOutputs(std::vector<size_t> outputs) {
    inputs_.wanted_outputs = std::move(outputs);
  }

  const TensorModel::Inputs* inputs() const { return &inputs_; }

 private:
  static constexpr size_t kNumInputs = 5;

  template <typename T>
  static std::string_view BytesOf(const std::vector<T>& values) {
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
  }

  std::vector<int64_t> ids_, lengths_, mask_positions_;
  std::vector<int32_t> top_k_;
  std::string texts_;
  TensorModel::Inputs inputs_;
};

template <typename T>
std::vector<T> ValuesOf(const OutputTensor& tensor) {
  std::vector<T> values(tensor.data.size() / sizeof(T));
  std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
  return values;
}

inline std::vector<float> FloatsOf(const OutputTensor& tensor) { return ValuesOf<float>(tensor); }

// Tokens of the vocabulary of testing/random_encoder.h, none of them padding.
inline std::vector<int64_t> RandomTokens(int num_tokens, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int64_t> tokens(num_tokens);
  for (int64_t& token : tokens) token = 2 + static_cast<int64_t>(random() % 38);
  return tokens;
}

}  // namespace evaserve
