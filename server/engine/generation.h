#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "models/sampler.h"
#include "models/tokenizer.h"
#include "server/engine/request.h"
#include "server/engine/stop_matcher.h"

namespace evaserve {

// Turns the sampled tokens of one generation into text, and decides when it ends. Not thread-safe.
class Generation {
 public:
  // `max_new_tokens` overrides the options'. `eos_tokens` and `tokenizer` must outlive this.
  Generation(const GenerateOptions& options, int64_t max_new_tokens,
             std::span<const TokenId> eos_tokens, const Tokenizer& tokenizer);

  struct Output {
    std::string_view text;  // valid until the next Push()
    GeneratedToken token;
  };

  // Takes the next token; none may follow once finish_reason() is set. An end-of-sequence token
  // that ends the text adds no bytes to it.
  Output Push(SampledToken sample);

  FinishReason finish_reason() const { return finish_reason_; }
  // The stop string that matched, or empty.
  std::string stop() const { return stop_matcher_.match().value_or(""); }
  int64_t new_tokens() const { return new_tokens_; }
  int64_t new_bytes() const { return new_bytes_; }

 private:
  bool EndsText(TokenId token) const;

  const std::span<const TokenId> eos_tokens_;
  const Tokenizer& tokenizer_;
  const int64_t max_new_tokens_;
  const bool ignore_eos_;
  StopMatcher stop_matcher_;
  FinishReason finish_reason_ = FinishReason::kNone;
  int64_t new_tokens_ = 0;
  int64_t new_bytes_ = 0;
};

}  // namespace evaserve
