#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "models/model.h"
#include "server/engine/request.h"

namespace evaserve {

// What one request may ask of a model.
struct RequestLimits {
  int vocab_size = 0;
  int64_t max_seq_len = 0;      // tokens, prompt and answer together
  int64_t max_pool_tokens = 0;  // the longest sequence that fits into the empty state pool
  // As configured; 0: none of its own.
  int64_t max_prompt_tokens = 0;
  int64_t max_new_tokens = 0;
};

// Asks `model` for its limits, max_pool_tokens by bisection over PagesFor().
RequestLimits LimitsOf(const Model& model);

// The new tokens that a generation can get: max_new_tokens, or fewer where the model's length ends.
int64_t MaxNewTokens(const Request& request, const RequestLimits& limits);

// InvalidArgument for a token outside the vocabulary.
absl::Status CheckTokens(const char* field, std::span<const TokenId> tokens, int vocab_size);

// InvalidArgument for one outside kMostUrgent .. kLeastUrgent.
absl::Status CheckPriority(int priority);

// InvalidArgument, naming field, value and limit, for an empty or too long text, one that is too
// short for its task, a token outside the vocabulary, bad options, or a request whose state can
// never fit into the pool.
absl::Status CheckRequest(const Request& request, const RequestLimits& limits);

}  // namespace evaserve
