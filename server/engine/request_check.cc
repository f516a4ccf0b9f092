#include "server/engine/request_check.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

const char* FieldName(Task task) { return task == Task::kGenerate ? "prompt" : "text"; }

absl::Status CheckLength(const Request& request, const RequestLimits& limits) {
  const int64_t tokens = request.num_tokens();
  const char* field = FieldName(request.task);
  if (tokens == 0) return absl::InvalidArgumentError(absl::StrCat(field, " is empty"));
  if (limits.max_prompt_tokens > 0 && tokens > limits.max_prompt_tokens) {
    return absl::InvalidArgumentError(absl::StrCat(field, " has ", tokens, " tokens, the limit is ",
                                                   limits.max_prompt_tokens,
                                                   " (max_prompt_tokens)"));
  }
  if (request.task == Task::kGenerate) {
    if (tokens < limits.max_seq_len) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(field, " has ", tokens, " tokens, the limit is ",
                                                   limits.max_seq_len - 1, " (max_seq_len ",
                                                   limits.max_seq_len, " less 1 new token)"));
  }
  if (tokens == 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, " has 1 token, at least 2 are needed; is it empty?"));
  }
  if (tokens <= limits.max_seq_len) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, " has ", tokens, " tokens, the limit is ",
                                                 limits.max_seq_len, " (max_seq_len)"));
}

absl::Status CheckGenerateOptions(const GenerateOptions& options, const RequestLimits& limits) {
  if (absl::Status status = Validate(options.sampling); !status.ok()) return status;
  for (const auto& [token, bias] : options.sampling.logit_bias) {
    if (token < limits.vocab_size) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("logit_bias has token ", token, ", the vocabulary has ", limits.vocab_size));
  }
  if (options.max_new_tokens < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_new_tokens is ", options.max_new_tokens, ", it must be at least 1"));
  }
  if (limits.max_new_tokens > 0 && options.max_new_tokens > limits.max_new_tokens) {
    return absl::InvalidArgumentError(absl::StrCat("max_new_tokens is ", options.max_new_tokens,
                                                   ", the limit is ", limits.max_new_tokens));
  }
  for (size_t i = 0; i < options.stop.size(); ++i) {
    if (!options.stop[i].empty()) continue;
    return absl::InvalidArgumentError(absl::StrCat("stop[", i, "] is empty"));
  }
  return absl::OkStatus();
}

absl::Status CheckPool(const Request& request, const RequestLimits& limits) {
  const int64_t tokens = request.num_tokens();
  const char* field = FieldName(request.task);
  if (tokens > limits.max_pool_tokens) {
    return absl::InvalidArgumentError(absl::StrCat(field, " has ", tokens, " tokens, the limit is ",
                                                   limits.max_pool_tokens, " (state pool)"));
  }
  if (request.task != Task::kGenerate) return absl::OkStatus();
  const int64_t max_new_tokens = MaxNewTokens(request, limits);
  if (tokens + max_new_tokens - 1 <= limits.max_pool_tokens) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "max_new_tokens is ", request.generate.max_new_tokens, ", the limit is ",
      limits.max_pool_tokens - tokens + 1, " after a prompt of ", tokens, " tokens (state pool)"));
}

}  // namespace

RequestLimits LimitsOf(const Model& model) {
  const int total_pages = model.state_pool().total_pages;
  RequestLimits limits{.vocab_size = model.info().vocab_size,
                       .max_seq_len = model.info().max_seq_len};
  int64_t fits = 0;
  int64_t too_long = limits.max_seq_len + 1;
  while (fits + 1 < too_long) {
    const int64_t middle = fits + (too_long - fits) / 2;
    (model.PagesFor(middle) <= total_pages ? fits : too_long) = middle;
  }
  limits.max_pool_tokens = fits;
  return limits;
}

int64_t MaxNewTokens(const Request& request, const RequestLimits& limits) {
  return std::min(request.generate.max_new_tokens, limits.max_seq_len - request.num_tokens());
}

absl::Status CheckTokens(const char* field, std::span<const TokenId> tokens, int vocab_size) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= 0 && tokens[i] < vocab_size) continue;
    return absl::InvalidArgumentError(absl::StrCat(field, " has token ", tokens[i], " at ", i,
                                                   ", the vocabulary has ", vocab_size));
  }
  return absl::OkStatus();
}

absl::Status CheckPriority(int priority) {
  if (priority >= kMostUrgent && priority <= kLeastUrgent) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("priority is ", priority, ", allowed is ", kMostUrgent, " to ", kLeastUrgent));
}

absl::Status CheckRequest(const Request& request, const RequestLimits& limits) {
  if (absl::Status status = CheckLength(request, limits); !status.ok()) return status;
  if (absl::Status status = CheckTokens(FieldName(request.task), request.tokens, limits.vocab_size);
      !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckPriority(request.priority); !status.ok()) return status;
  if (request.task == Task::kGenerate) {
    absl::Status status = CheckGenerateOptions(request.generate, limits);
    if (!status.ok()) return status;
  }
  return CheckPool(request, limits);
}

}  // namespace evaserve
