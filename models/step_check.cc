#include "models/step_check.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

absl::Status Refuse(size_t index, const std::string& problem) {
  return absl::InvalidArgumentError(absl::StrCat("items[", index, "]: ", problem));
}

absl::Status ValidateTokens(size_t index, const char* field, std::span<const TokenId> tokens,
                            int vocab_size) {
  for (TokenId token : tokens) {
    if (token >= 0 && token < vocab_size) continue;
    return Refuse(index,
                  absl::StrCat(field, ": token ", token, " is outside [0, ", vocab_size, ")"));
  }
  return absl::OkStatus();
}

absl::Status ValidateLength(size_t index, const StepItem& item, const StepLimits& limits) {
  const int64_t length = item.sequence->length(), num_tokens = std::ssize(item.tokens);
  if (num_tokens < 1) return Refuse(index, "no tokens; at least 1 is needed");
  if (limits.window > 0 && num_tokens > limits.window - length % limits.window) {
    return Refuse(index, absl::StrCat(num_tokens, " tokens; the window takes ",
                                      limits.window - length % limits.window, " more"));
  }
  if (length + num_tokens > limits.max_seq_len) {
    return Refuse(index, absl::StrCat("the sequence would have ", length + num_tokens,
                                      " tokens; the model's limit is ", limits.max_seq_len));
  }
  if (!item.targets.empty() && item.targets.size() != item.tokens.size()) {
    return Refuse(index, absl::StrCat(item.targets.size(), " targets for ", num_tokens, " tokens"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateStep(std::span<const StepItem> items, const StepLimits& limits,
                          uint64_t step) {
  for (size_t i = 0; i < items.size(); ++i) {
    const StepItem& item = items[i];
    if (item.sequence == nullptr) return Refuse(i, "no sequence");
    auto& sequence = *static_cast<CheckedSequence*>(item.sequence);
    if (!sequence.Join(step)) return Refuse(i, "the same sequence twice");
    if (absl::Status status = ValidateLength(i, item, limits); !status.ok()) return status;
    for (const auto& [field, list] :
         {std::pair("tokens", item.tokens), std::pair("targets", item.targets)}) {
      absl::Status status = ValidateTokens(i, field, list, limits.vocab_size);
      if (!status.ok()) return status;
    }
    if (!sequence.HasRoomFor(static_cast<int>(item.tokens.size()))) {
      return absl::FailedPreconditionError(
          absl::StrCat("items[", i, "]: ", item.tokens.size(), " tokens without a reservation"));
    }
  }
  return absl::OkStatus();
}

}  // namespace evaserve
