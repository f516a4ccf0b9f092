#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "models/eva_encoder/network.h"
#include "models/eva_translation/beam_search.h"
#include "models/eva_translation/decoder.h"
#include "models/float_buffer.h"

namespace evaserve {

struct TranslationTask {
  std::vector<TokenId> source;  // </s> at its end
  BeamSearch::Options search;
};

// Tokens of hypotheses whose keys and values a search may have to keep, and as many as are allowed
// at a time: of a model with 6 layers of 512 numbers each is 24 KiB. Those of an ordinary sentence
// keep their memory from one call to the next.
int64_t MaxSlots(const BeamSearch::Options& search);
inline constexpr int kMaxSlots = 1 << 15;
inline constexpr int kSlotsKept = 1 << 10;

// Tokens to tokens. Not thread-safe.
class Translator {
 public:
  // `decoder` has kMaxSlots slots.
  Translator(std::unique_ptr<EvaEncoderNetwork> encoder,
             std::unique_ptr<TranslationDecoder> decoder, int target_vocab_size,
             WorkerPool& workers);

  // InvalidArgument unless the encoder takes a source of so many tokens.
  absl::Status CheckLength(int num_tokens) const { return encoder_->CheckLength(num_tokens); }

  // The best translation of each. The encoder takes every source, the decoder has positions for
  // max_length + 1 tokens, and MaxSlots() is at most kMaxSlots. A result does not depend, to the
  // bit, on the other tasks. Cancelled as soon as `is_wanted`, asked before every token, is false.
  absl::StatusOr<std::vector<BeamSearch::Finished>> Run(std::span<const TranslationTask> tasks,
                                                        const std::function<bool()>& is_wanted);

  // Memory of keys and values, in slots. Thread-safe.
  StatePool slots() const { return decoder_->slots(); }

 private:
  // One sentence on its way.
  struct Sentence {
    BeamSearch search;
    std::vector<std::vector<int32_t>> slots;  // of each of search.live()
  };
  // Numbers of slots, each in use as long as hypotheses have it.
  class SlotPool {
   public:
    int32_t Take();
    void Share(std::span<const int32_t> slots);
    void Release(std::span<const int32_t> slots);

   private:
    std::vector<int> num_users_;
    std::vector<int32_t> free_;
  };

  absl::StatusOr<std::vector<BeamSearch::Finished>> RunPasses(
      std::span<const TranslationTask> tasks, const std::function<bool()>& is_wanted);
  static std::span<const TranslationTask> NextPass(std::span<const TranslationTask> tasks);
  absl::Status Encode(std::span<const TranslationTask> tasks);
  absl::Status Step(std::span<Sentence> sentences);
  void Advance(Sentence& sentence, std::span<const float> log_probs);
  void TurnIntoLogProbs(int num_rows, float* logits);

  const std::unique_ptr<EvaEncoderNetwork> encoder_;
  const std::unique_ptr<TranslationDecoder> decoder_;
  const int64_t vocab_size_;
  WorkerPool& workers_;
  SlotPool slots_;
  FloatBuffer encoded_, logits_;
};

}  // namespace evaserve
