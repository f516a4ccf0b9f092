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
    inputs_.resize(2);
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
    inputs_.resize(2);
    inputs_[0] = {{num_rows, static_cast<int64_t>(longest)}, BytesOf(ids_)};
    inputs_[1] = {{num_rows}, BytesOf(lengths_)};
  }

  EncoderRequest(const EncoderRequest&) = delete;
  EncoderRequest& operator=(const EncoderRequest&) = delete;

  void SetLengths(std::vector<int64_t> lengths) {
    lengths_ = std::move(lengths);
    inputs_[1] = {{static_cast<int64_t>(lengths_.size())}, BytesOf(lengths_)};
  }

  // By their places among the model's.
  void SetWantedOutputs(std::vector<size_t> outputs) {
    inputs_.wanted_outputs = std::move(outputs);
  }

  const TensorModel::Inputs* inputs() const { return &inputs_; }

 private:
  static std::string_view BytesOf(const std::vector<int64_t>& values) {
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(int64_t)};
  }

  std::vector<int64_t> ids_, lengths_;
  TensorModel::Inputs inputs_;
};

inline std::vector<float> FloatsOf(const OutputTensor& tensor) {
  std::vector<float> values(tensor.data.size() / sizeof(float));
  std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
  return values;
}

// Tokens of the vocabulary of testing/random_encoder.h, none of them padding.
inline std::vector<int64_t> RandomTokens(int num_tokens, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int64_t> tokens(num_tokens);
  for (int64_t& token : tokens) token = 2 + static_cast<int64_t>(random() % 38);
  return tokens;
}

}  // namespace evaserve
