#include "server/engine/generation.h"

#include <algorithm>
#include <utility>

namespace evaserve {

Generation::Generation(const GenerateOptions& options, int64_t max_new_tokens,
                       std::span<const TokenId> eos_tokens, const Tokenizer& tokenizer)
    : eos_tokens_(eos_tokens),
      tokenizer_(tokenizer),
      max_new_tokens_(max_new_tokens),
      ignore_eos_(options.ignore_eos),
      stop_matcher_(options.stop, options.include_stop) {}

bool Generation::EndsText(TokenId token) const {
  return !ignore_eos_ && std::ranges::find(eos_tokens_, token) != eos_tokens_.end();
}

Generation::Output Generation::Push(SampledToken sample) {
  ++new_tokens_;
  if (EndsText(sample.chosen.token)) {
    finish_reason_ = FinishReason::kEos;
  } else if (new_tokens_ == max_new_tokens_) {
    finish_reason_ = FinishReason::kLength;
  }

  Output output;
  if (finish_reason_ != FinishReason::kEos) {
    output.token.bytes = tokenizer_.Decode(sample.chosen.token);
  }
  output.token.sample = std::move(sample);
  output.text =
      stop_matcher_.Push(output.token.bytes, /*is_last=*/finish_reason_ != FinishReason::kNone);
  if (stop_matcher_.match()) finish_reason_ = FinishReason::kStop;
  new_bytes_ += static_cast<int64_t>(output.text.size());
  return output;
}

}  // namespace evaserve
