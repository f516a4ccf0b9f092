#include "models/eva_lm/word_tables.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "models/token_filters.h"

namespace evaserve {
namespace {

// Of logits at a time when targets are scored: 16 MiB.
constexpr int64_t kLogitsAtOnce = 1 << 22;

int RowsAtOnce(int64_t num_logits) {
  return static_cast<int>(std::max<int64_t>(kLogitsAtOnce / num_logits, 8));
}

PackedWeight Transposed(const WeightView& weight, DType dtype) {
  std::vector<float> values(weight.out_features * weight.in_features);
  for (int64_t out = 0; out < weight.out_features; ++out) {
    for (int64_t in = 0; in < weight.in_features; ++in) {
      values[in * weight.out_features + out] =
          LoadElement(weight.data, weight.dtype, out * weight.in_features + in);
    }
  }
  const WeightView view = {values.data(), DType::kFloat32, weight.in_features, weight.out_features};
  return PackedWeight::Pack({&view, 1}, dtype);
}

void Multiply(const PackedWeight& weight, const float* x, int rows, float* y, int64_t y_stride,
              WorkerPool& workers) {
  LinearCpu({.weight = &weight,
             .x = x,
             .x_stride = weight.in_features(),
             .y = y,
             .y_stride = y_stride,
             .rows = rows},
            workers);
}

}  // namespace

WordTables::WordTables(TensorReader& reader, const EvaLmConfig& config)
    : size_(config.size), vocab_size_(config.vocab_size), embed_scale_(config.embed_scale) {
  int begin = 0;
  for (int cutoff : config.cutoffs) {
    bands_.push_back({.begin = begin, .end = cutoff});
    begin = cutoff;
  }
  bands_.push_back({.begin = begin, .end = vocab_size_});
  for (int i = 0; i < static_cast<int>(bands_.size()); ++i) ReadBand(reader, i, config);
  if (config.has_tied_output) return;
  const WeightView output = reader.View("output_projection.weight", {vocab_size_, size_});
  if (reader.status().ok()) untied_ = PackedWeight::Pack({&output, 1}, config.dtype);
}

void WordTables::ReadBand(TensorReader& reader, int index, const EvaLmConfig& config) {
  WordBand& band = bands_[index];
  const bool is_only = bands_.size() == 1;
  const std::string prefix = absl::StrCat("embed_tokens.embeddings.", index, ".");
  const int64_t band_size = config.BandSize(index);
  std::vector<WeightView> words = {reader.View(
      is_only ? "embed_tokens.weight" : prefix + "0.weight", {band.num_words(), band_size})};
  if (index == 0 && !is_only) {
    words.push_back(reader.View("adaptive_softmax.head.class_proj.weight",
                                {static_cast<int64_t>(config.cutoffs.size()), size_}));
  }
  WeightView widen;
  if (!is_only) widen = reader.View(prefix + "1.weight", {size_, band_size});
  if (!reader.status().ok()) return;
  band.words = PackedWeight::Pack(words, config.dtype);
  if (!is_only) band.widen = PackedWeight::Pack({&widen, 1}, config.dtype);
  if (index > 0) band.narrow = Transposed(widen, config.dtype);
}

int64_t WordTables::bytes() const {
  int64_t bytes = untied_.bytes();
  for (const WordBand& band : bands_) {
    bytes += band.words.bytes() + band.widen.bytes() + band.narrow.bytes();
  }
  return bytes;
}

int WordTables::BandOf(TokenId token) const {
  int band = 0;
  while (token >= bands_[band].end) ++band;
  return band;
}

void WordTables::Embed(std::span<const TokenId> tokens, float* x, WorkerPool& workers) {
  std::vector<std::vector<int>> rows(bands_.size());  // by band
  for (size_t i = 0; i < tokens.size(); ++i) {
    rows[BandOf(tokens[i])].push_back(static_cast<int>(i));
  }
  for (size_t i = 0; i < bands_.size(); ++i) {
    if (!rows[i].empty()) EmbedBand(bands_[i], tokens, rows[i], x, workers);
  }
}

void WordTables::EmbedBand(const WordBand& band, std::span<const TokenId> tokens,
                           std::span<const int> rows, float* x, WorkerPool& workers) {
  const int64_t width = band.words.in_features();
  const int count = static_cast<int>(rows.size());
  float* vectors = narrow_.Get(count * width);
  for (int i = 0; i < count; ++i) {
    for (int64_t j = 0; j < width; ++j) {
      vectors[i * width + j] = band.words.at(tokens[rows[i]] - band.begin, j);
    }
  }
  if (band.widen.out_features() > 0) {
    float* wide = gathered_.Get(int64_t{count} * size_);
    Multiply(band.widen, vectors, count, wide, size_, workers);
    vectors = wide;
  }
  for (int i = 0; i < count; ++i) {
    float* row = x + int64_t{rows[i]} * size_;
    for (int j = 0; j < size_; ++j) row[j] = vectors[int64_t{i} * size_ + j] * embed_scale_;
  }
}

void WordTables::BandLogits(const WordBand& band, const float* hidden, int rows, float* logits,
                            int64_t stride, WorkerPool& workers) {
  const int64_t width = band.narrow.out_features();
  float* narrow = narrow_.Get(rows * width);
  Multiply(band.narrow, hidden, rows, narrow, width, workers);
  Multiply(band.words, narrow, rows, logits, stride, workers);
}

void WordTables::LogProbs(const float* hidden, int rows, float* logprobs, WorkerPool& workers) {
  const int64_t num_head = output().out_features();
  float* head = head_logits_.Get(rows * num_head);
  Multiply(output(), hidden, rows, head, num_head, workers);
  for (size_t b = 1; b < bands_.size(); ++b) {
    BandLogits(bands_[b], hidden, rows, logprobs + bands_[b].begin, vocab_size_, workers);
  }
  for (int row = 0; row < rows; ++row, head += num_head, logprobs += vocab_size_) {
    const float head_sum = LogSumExp({head, static_cast<size_t>(num_head)});
    const int num_words = bands_.front().num_words();
    for (int i = 0; i < num_words; ++i) logprobs[i] = head[i] - head_sum;
    for (size_t b = 1; b < bands_.size(); ++b) {
      const std::span<float> words(logprobs + bands_[b].begin, bands_[b].num_words());
      const float shift = head[num_words + b - 1] - head_sum - LogSumExp(words);
      for (float& logprob : words) logprob += shift;
    }
  }
}

void WordTables::TargetLogProbs(const float* hidden, std::span<const TokenId> targets,
                                float* logprobs, WorkerPool& workers) {
  const int64_t num_head = output().out_features();
  const int num_rows = static_cast<int>(targets.size());
  std::vector<std::vector<int>> rows(bands_.size());  // by band
  const int block = RowsAtOnce(num_head);
  for (int begin = 0; begin < num_rows; begin += block) {
    const int count = std::min(block, num_rows - begin);
    float* head = head_logits_.Get(count * num_head);
    Multiply(output(), hidden + int64_t{begin} * size_, count, head, num_head, workers);
    for (int row = begin; row < begin + count; ++row, head += num_head) {
      const int band = BandOf(targets[row]);
      const int choice = band == 0 ? targets[row] : bands_.front().num_words() + band - 1;
      logprobs[row] = head[choice] - LogSumExp({head, static_cast<size_t>(num_head)});
      rows[band].push_back(row);
    }
  }
  for (size_t b = 1; b < bands_.size(); ++b) {
    AddBandLogProbs(bands_[b], hidden, targets, rows[b], logprobs, workers);
  }
}

void WordTables::AddBandLogProbs(const WordBand& band, const float* hidden,
                                 std::span<const TokenId> targets, std::span<const int> rows,
                                 float* logprobs, WorkerPool& workers) {
  const int64_t num_words = band.num_words();
  for (const size_t block = RowsAtOnce(num_words); !rows.empty();
       rows = rows.subspan(std::min(block, rows.size()))) {
    const int count = static_cast<int>(std::min(block, rows.size()));
    float* gathered = gathered_.Get(int64_t{count} * size_);
    for (int i = 0; i < count; ++i) {
      std::memcpy(gathered + int64_t{i} * size_, hidden + int64_t{rows[i]} * size_,
                  size_ * sizeof(float));
    }
    float* logits = band_logits_.Get(count * num_words);
    BandLogits(band, gathered, count, logits, num_words, workers);
    for (int i = 0; i < count; ++i, logits += num_words) {
      logprobs[rows[i]] += logits[targets[rows[i]] - band.begin] -
                           LogSumExp({logits, static_cast<size_t>(num_words)});
    }
  }
}

}  // namespace evaserve
