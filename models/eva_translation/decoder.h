#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/list_attend.h"
#include "models/eva/layers.h"
#include "models/eva_translation/config.h"
#include "models/eva_translation/slot_memory.h"
#include "models/float_buffer.h"
#include "models/tokenizer.h"

namespace evaserve {

struct TranslationDecoderLayer {
  LinearLayer self_qkv, self_out;  // self_attn: q_proj, k_proj and v_proj as one, and out_proj
  NormLayer self_norm;
  LinearLayer cross_q, cross_kv, cross_out;  // encoder_attn
  NormLayer cross_norm;
  Mlp mlp;
  NormLayer mlp_norm;  // final_layer_norm
};

struct TranslationDecoderWeights {
  std::vector<float> embedding;  // [vocab_size, size], times embed_scale
  std::vector<float> positions;  // [max_tokens, size]
  NormLayer embedding_norm;      // empty for none
  std::vector<TranslationDecoderLayer> layers;
  NormLayer norm;      // after the last layer; empty for none
  LinearLayer output;  // [vocab_size, size]
};

// `encoder` and `decoder` read the tensors of these parts. Errors are theirs.
absl::StatusOr<TranslationDecoderWeights> ReadTranslationDecoderWeights(
    TensorReader& encoder, TensorReader& decoder, const EvaTranslationConfig& config);

int64_t Bytes(const TranslationDecoderWeights& weights);

// One token of a hypothesis, whose next one is asked for.
struct DecoderRow {
  TokenId token = 0;
  int source = 0;  // which sentence it translates
  // Where the keys and values of all tokens of its hypothesis lie, its own last: that one is
  // written, the others were before, or are of rows of the same step.
  std::span<const int32_t> slots;
};

// The decoder of fairseq's transformer, on the CPU. Keys and values of a sentence are made once,
// those of a hypothesis's tokens as they come. Not thread-safe.
class TranslationDecoder {
 public:
  // Slots are numbers in [0, num_slots). ResourceExhausted if the system has no address space for
  // so many.
  static absl::StatusOr<std::unique_ptr<TranslationDecoder>> Create(
      const EvaTranslationConfig& config, TranslationDecoderWeights weights, int num_slots,
      WorkerPool& workers);

  int64_t weight_bytes() const { return Bytes(weights_); }

  // The memory of the slots, each of which is a page. Thread-safe.
  StatePool slots() const { return own_kv_->state(); }
  // Gives back the memory of the slots from `begin` on, whose keys and values are lost.
  void GiveBackSlots(int begin) { own_kv_->GiveBack(begin); }

  // The sentences of the next steps: encoded [tokens, encoder.size], one after the other.
  void SetSources(const float* encoded, std::span<const int> lengths);

  // From `rows` to logits [rows, vocab_size]. Rows of one source that follow each other are faster.
  // A row's result does not depend, to the bit, on the other ones, but for those in its slots.
  // InvalidArgument for a slot that there is not.
  absl::Status Step(std::span<const DecoderRow> rows, float* logits);

 private:
  using Items = std::vector<ListAttendItem>;

  TranslationDecoder(const EvaTranslationConfig& config, TranslationDecoderWeights weights,
                     std::unique_ptr<SlotMemory> own_kv, WorkerPool& workers);

  void Embed(std::span<const DecoderRow> rows, float* x) const;
  absl::Status UseSlots(std::span<const DecoderRow> rows);
  absl::Status RunLayer(size_t index, std::span<const DecoderRow> rows, const Items& own,
                        const Items& sources, float* x);
  absl::Status AddSelfAttention(size_t index, std::span<const DecoderRow> rows, const Items& own,
                                const float* x, float* residual);
  absl::Status AddCrossAttention(size_t index, int num_rows, const Items& sources, const float* x,
                                 float* residual);
  ListAttendParams AttendParams(const Items& items, int num_rows) const;

  const TranslationDecoderConfig config_;
  const DType dtype_;
  const TranslationDecoderWeights weights_;
  WorkerPool& workers_;
  std::vector<int32_t> source_tokens_;  // 0, 1, 2, ...
  std::vector<std::span<const int32_t>> sources_;
  std::vector<FloatBuffer> source_kv_;        // of each layer: [source tokens, keys | values]
  const std::unique_ptr<SlotMemory> own_kv_;  // a row is [keys | values]
  FloatBuffer x_, normed_, qkv_, attended_, hidden_;
};

}  // namespace evaserve
