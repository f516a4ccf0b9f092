#include "server/repository/warm_up.h"

#include <algorithm>
#include <vector>

#include "models/sampler.h"

namespace evaserve {
namespace {

// What a device records of a decoding step, it records at the second.
constexpr int kNewTokens = 3;

absl::Status RunStep(Model& model, Sequence& sequence, std::span<const TokenId> tokens,
                     Sampler& sampler) {
  absl::Status status = model.Reserve(sequence, static_cast<int>(tokens.size()));
  if (!status.ok()) return status;
  const StepItem item{.sequence = &sequence, .tokens = tokens, .sampler = &sampler};
  return model.Step({&item, 1}).status();
}

}  // namespace

absl::Status WarmUp(Model& model, int num_tokens) {
  const std::unique_ptr<Sequence> sequence = model.NewSequence();
  Sampler sampler({.temperature = 0});
  int64_t left = std::min<int64_t>(num_tokens, model.info().max_seq_len - kNewTokens);
  while (left > 0) {
    const std::vector<TokenId> text(std::min<int64_t>(left, model.TokensToBoundary(*sequence)), 0);
    if (absl::Status status = RunStep(model, *sequence, text, sampler); !status.ok()) return status;
    left -= std::ssize(text);
  }
  for (int i = 0; i < kNewTokens && sequence->length() < model.info().max_seq_len; ++i) {
    const TokenId token = 0;
    absl::Status status = RunStep(model, *sequence, {&token, 1}, sampler);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace evaserve
