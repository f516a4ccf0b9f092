#include "models/evabyte/step_batch.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

// Every sequence of an EvaByteModel is one of these.
EvaByteSequence& SequenceOf(const StepItem& item) {
  return *static_cast<EvaByteSequence*>(item.sequence);
}

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

absl::Status ValidateLength(size_t index, const StepItem& item, const EvaByteConfig& config) {
  const int64_t length = item.sequence->length(), num_tokens = std::ssize(item.tokens);
  const EvaByteGeometry geometry{.window = config.window, .chunk = config.chunk};
  if (num_tokens < 1) return Refuse(index, "no tokens; at least 1 is needed");
  if (num_tokens > geometry.TokensToBoundary(length)) {
    return Refuse(index, absl::StrCat(num_tokens, " tokens; the window takes ",
                                      geometry.TokensToBoundary(length), " more"));
  }
  if (length + num_tokens > config.max_positions) {
    return Refuse(index, absl::StrCat("the sequence would have ", length + num_tokens,
                                      " tokens; the model's limit is ", config.max_positions));
  }
  if (!item.targets.empty() && item.targets.size() != item.tokens.size()) {
    return Refuse(index, absl::StrCat(item.targets.size(), " targets for ", num_tokens, " tokens"));
  }
  return absl::OkStatus();
}

}  // namespace

void StepBatch::Assign(std::span<const StepItem> items, EvaByteGeometry geometry) {
  tokens.clear();
  stores.clear();
  attends.clear();
  folds.clear();
  for (const StepItem& item : items) {
    const EvaByteSequence& sequence = SequenceOf(item);
    const int first_row = num_rows();
    const int num_tokens = static_cast<int>(item.tokens.size());
    const int num_before = geometry.NumWindow(sequence.length());
    const int num_summaries = static_cast<int>(geometry.NumSummaries(sequence.length()));
    tokens.insert(tokens.end(), item.tokens.begin(), item.tokens.end());
    stores.push_back({.token_begin = first_row,
                      .num_tokens = num_tokens,
                      .window_pages = sequence.window_pages(),
                      .slot_begin = num_before,
                      .position_begin = static_cast<int>(sequence.length())});
    attends.push_back({.slots = {.summary_pages = sequence.summary_pages(),
                                 .num_summaries = num_summaries,
                                 .window_pages = sequence.window_pages(),
                                 .num_window = num_before + num_tokens},
                       .query_begin = first_row,
                       .num_queries = num_tokens});
    if (num_before + num_tokens < geometry.window) continue;
    folds.push_back({.window_pages = sequence.window_pages(),
                     .num_chunks = geometry.window / geometry.chunk,
                     .summary_pages = sequence.summary_pages(),
                     .summary_begin = num_summaries});
  }
}

absl::Status Validate(std::span<const StepItem> items, const EvaByteConfig& config, uint64_t step) {
  for (size_t i = 0; i < items.size(); ++i) {
    const StepItem& item = items[i];
    if (item.sequence == nullptr) return Refuse(i, "no sequence");
    if (!SequenceOf(item).Join(step)) return Refuse(i, "the same sequence twice");
    if (absl::Status status = ValidateLength(i, item, config); !status.ok()) return status;
    for (const auto& [field, list] :
         {std::pair("tokens", item.tokens), std::pair("targets", item.targets)}) {
      absl::Status status = ValidateTokens(i, field, list, config.vocab_size);
      if (!status.ok()) return status;
    }
    if (!SequenceOf(item).HasRoomFor(static_cast<int>(item.tokens.size()))) {
      return absl::FailedPreconditionError(
          absl::StrCat("items[", i, "]: ", item.tokens.size(), " tokens without a reservation"));
    }
  }
  return absl::OkStatus();
}

}  // namespace evaserve
