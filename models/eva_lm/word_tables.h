#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/linear.h"
#include "kernels/worker_pool.h"
#include "models/eva_lm/config.h"
#include "models/float_buffer.h"
#include "models/io/tensor_reader.h"

namespace evaserve {

// A part of the vocabulary, [begin, end): the rarer its words, the shorter their vectors.
struct WordBand {
  int begin = 0;
  int end = 0;
  PackedWeight words;   // [end - begin, band size]; of the first band: see WordTables
  PackedWeight widen;   // [size, band size], to a token's size; empty where bands do not exist
  PackedWeight narrow;  // [band size, size], its transpose; empty for the first band

  int num_words() const { return end - begin; }
};

// Words to vectors and back: adaptive input and the adaptive softmax tied to it (Grave et al.,
// "Efficient softmax approximation for GPUs", arXiv 1609.04309), or with one band ordinary
// embeddings and softmax.
//
// A word's probability is that of its band, given which it is that of the word in the band. Words
// of the first band and the other bands are alternatives of one softmax, the head; so a word costs
// the head and one band. Not thread-safe.
class WordTables {
 public:
  // Errors are the reader's; then the result is useless.
  WordTables(TensorReader& reader, const EvaLmConfig& config);

  int64_t bytes() const;

  // The embeddings, times embed_scale: [tokens, size].
  void Embed(std::span<const TokenId> tokens, float* x, WorkerPool& workers);

  // Of every word: from hidden [rows, size] to [rows, vocab_size], natural log.
  void LogProbs(const float* hidden, int rows, float* logprobs, WorkerPool& workers);

  // Of one word for each row of hidden: [rows]. Equal to what LogProbs() gives up to rounding.
  void TargetLogProbs(const float* hidden, std::span<const TokenId> targets, float* logprobs,
                      WorkerPool& workers);

 private:
  void ReadBand(TensorReader& reader, int index, const EvaLmConfig& config);
  int BandOf(TokenId token) const;
  // The head's weights.
  const PackedWeight& output() const {
    return untied_.out_features() > 0 ? untied_ : bands_.front().words;
  }

  void EmbedBand(const WordBand& band, std::span<const TokenId> tokens, std::span<const int> rows,
                 float* x, WorkerPool& workers);
  // Logits of a band's words, rows `stride` apart.
  void BandLogits(const WordBand& band, const float* hidden, int rows, float* logits,
                  int64_t stride, WorkerPool& workers);
  void AddBandLogProbs(const WordBand& band, const float* hidden, std::span<const TokenId> targets,
                       std::span<const int> rows, float* logprobs, WorkerPool& workers);

  const int size_;
  const int vocab_size_;
  const float embed_scale_;
  // The `words` of the first band go on with a row for each other band: together they are the head.
  std::vector<WordBand> bands_;
  PackedWeight untied_;  // [vocab_size, size]; empty if the output is the embedding
  FloatBuffer head_logits_, band_logits_, narrow_, gathered_;
};

}  // namespace evaserve
