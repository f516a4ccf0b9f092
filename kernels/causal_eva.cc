#include "kernels/causal_eva.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

absl::Status Refuse(const std::string& field, int64_t value, const std::string& allowed) {
  return absl::InvalidArgumentError(absl::StrCat(field, " is ", value, ", must be ", allowed));
}

// Landmarks see a sequence as non-causal EVA does: chunks without a margin.
LandmarksParams MakeLandmarks(const CausalEvaParams& p, std::span<const RegionItem> items) {
  LandmarksParams landmarks;
  landmarks.items = items;
  landmarks.num_heads = p.shape.num_heads;
  landmarks.head_dim = p.shape.head_dim;
  landmarks.scale = p.scale;
  landmarks.q = p.q;
  landmarks.k = p.k;
  landmarks.v = p.v;
  landmarks.stride = p.stride;
  landmarks.map_q = p.map_q;
  landmarks.map_k = p.map_k;
  landmarks.mu_scale = p.mu_scale;
  return landmarks;
}

absl::Status ValidateSequence(const CausalEvaShape& shape, const CausalEvaSequence& sequence,
                              const std::string& name) {
  if (sequence.position < 0) return Refuse(name + ".position", sequence.position, "at least 0");
  if (sequence.token_begin < 0) {
    return Refuse(name + ".token_begin", sequence.token_begin, "at least 0");
  }
  if (sequence.num_tokens < 0) {
    return Refuse(name + ".num_tokens", sequence.num_tokens, "at least 0");
  }
  const int64_t chunks = (int64_t{sequence.position} + sequence.num_tokens) / shape.chunk;
  if (sequence.state.max_chunks < chunks) {
    return Refuse(name + ".max_chunks", sequence.state.max_chunks,
                  absl::StrCat("at least ", chunks));
  }
  return absl::OkStatus();
}

// The results of one head of one token of a sequence, from the landmarks of all its chunks.
class QueryReference {
 public:
  QueryReference(const CausalEvaParams& p, const CausalEvaSequence& sequence, int head, int token)
      : p_(p), sequence_(sequence), head_(head), token_(token) {}

  void Run(const float* k_bar, const float* beta) {
    const CausalEvaShape& shape = p_.shape;
    const int window_begin = token_ / shape.window * shape.window;
    const int first = window_begin - shape.extension();
    for (int j = std::max(first, 0); j <= token_; ++j) {
      const int pair = (token_ - window_begin) * shape.num_keys() + j - first;
      See(Row(p_.k, j), Row(p_.v, j), p_.bias == nullptr ? 0. : p_.bias[pair]);
    }
    for (int c = 0; c < token_ / shape.chunk; ++c) {
      See(k_bar + int64_t{c} * shape.head_dim, beta + int64_t{c} * shape.head_dim, 0.);
    }
    Finish();
  }

 private:
  const float* Row(const float* x, int token) const {
    return x + (int64_t{sequence_.token_begin} + token) * p_.stride +
           int64_t{head_} * p_.shape.head_dim;
  }

  void See(const float* key, const float* value, double bias) {
    const float* q = Row(p_.q, token_);
    double dot = 0;
    for (int d = 0; d < p_.shape.head_dim; ++d) dot += double{q[d]} * key[d];
    logits_.push_back(p_.scale * dot + bias);
    values_.push_back(value);
  }

  void Finish() {
    const double max = *std::max_element(logits_.begin(), logits_.end());
    double sum = 0;
    for (double& weight : logits_) sum += weight = std::exp(weight - max);
    const int64_t row = int64_t{sequence_.token_begin} + token_;
    float* out = p_.out + row * p_.out_stride + int64_t{head_} * p_.shape.head_dim;
    for (int d = 0; d < p_.shape.head_dim; ++d) {
      double x = 0;
      for (size_t j = 0; j < values_.size(); ++j) x += logits_[j] / sum * values_[j][d];
      out[d] = static_cast<float>(x);
    }
    if (p_.lse != nullptr) {
      p_.lse[row * p_.shape.num_heads + head_] = static_cast<float>(max + std::log(sum));
    }
  }

  const CausalEvaParams& p_;
  const CausalEvaSequence& sequence_;
  const int head_, token_;
  std::vector<double> logits_;
  std::vector<const float*> values_;
};

absl::Status RunSequence(const CausalEvaParams& p, const CausalEvaSequence& sequence) {
  const CausalEvaShape& shape = p.shape;
  const int num_chunks = (sequence.num_tokens + shape.chunk - 1) / shape.chunk;
  const absl::StatusOr<Regions> regions =
      MakeRegions({1, sequence.num_tokens, shape.chunk, num_chunks, false, false});
  if (!regions.ok()) return regions.status();
  const RegionItem item = {&*regions, sequence.token_begin, 0};
  LandmarksParams landmarks = MakeLandmarks(p, {&item, 1});
  const int64_t head_size = int64_t{num_chunks} * shape.head_dim;
  std::vector<float> k_bar(shape.num_heads * head_size), beta(k_bar.size());
  landmarks.k_bar = k_bar.data();
  landmarks.beta = beta.data();
  if (absl::Status status = LandmarksReference(landmarks); !status.ok()) return status;
  for (int head = 0; head < shape.num_heads; ++head) {
    for (int token = 0; token < sequence.num_tokens; ++token) {
      QueryReference(p, sequence, head, token)
          .Run(k_bar.data() + head * head_size, beta.data() + head * head_size);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Validate(const CausalEvaShape& shape) {
  absl::Status status = ValidateHeads(shape.num_heads, shape.head_dim);
  if (!status.ok()) return status;
  if (shape.chunk < 1) return Refuse("chunk", shape.chunk, "at least 1");
  if (shape.window < 1 || shape.window % shape.chunk != 0) {
    return Refuse("window", shape.window,
                  absl::StrCat("a positive multiple of chunk, ", shape.chunk));
  }
  return absl::OkStatus();
}

absl::Status Validate(const CausalEvaParams& p) {
  if (absl::Status status = Validate(p.shape); !status.ok()) return status;
  // The rules of the maps and strides are those of landmarks.
  if (absl::Status status = Validate(MakeLandmarks(p, {})); !status.ok()) return status;
  if (p.dtype == DType::kFloat16) {
    return absl::InvalidArgumentError("dtype is float16; allowed on the CPU: float32, bfloat16");
  }
  const int64_t row = int64_t{p.shape.num_heads} * p.shape.head_dim;
  if (p.out_stride < row) {
    return Refuse("out_stride", p.out_stride, absl::StrCat("at least ", row));
  }
  for (size_t i = 0; i < p.sequences.size(); ++i) {
    absl::Status status =
        ValidateSequence(p.shape, p.sequences[i], absl::StrCat("sequences[", i, "]"));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status CausalEvaReference(const CausalEvaParams& params) {
  if (absl::Status status = Validate(params); !status.ok()) return status;
  for (const CausalEvaSequence& sequence : params.sequences) {
    if (sequence.position != 0) return Refuse("position", sequence.position, "0 in the reference");
    if (sequence.num_tokens == 0) continue;
    if (absl::Status status = RunSequence(params, sequence); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace evaserve
