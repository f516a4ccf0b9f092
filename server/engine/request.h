#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "models/sampler.h"
#include "models/tokenizer.h"

namespace evaserve {

using Clock = std::chrono::steady_clock;
using TimePoint = Clock::time_point;

enum class Task { kGenerate, kScore, kEmbed, kInfer };  // kInfer: of a TensorModel

enum class FinishReason {
  kNone,    // not a generation, or it ended with an error
  kLength,  // max_new_tokens or the model's limit
  kEos,     // the model ended its text
  kStop,    // a stop string
};

struct GenerateOptions {
  SamplingParams sampling;
  int64_t max_new_tokens = 256;   // at least 1
  std::vector<std::string> stop;  // the text ends before the first of these; each at least 1 byte
  bool include_stop = false;      // keep the stop string in the text
  bool ignore_eos = false;        // go on after an end-of-sequence token
};

// One generated token as a client sees it.
struct GeneratedToken {
  std::string bytes;  // empty for a special token
  SampledToken sample;
};

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t new_tokens = 0;
  int64_t new_bytes = 0;  // delivered
};

struct Timings {
  std::chrono::microseconds queue{0};        // from Submit() to the first step
  std::chrono::microseconds first_token{0};  // from Submit() to the first generated token
  std::chrono::microseconds total{0};        // from Submit() to the end
};

// How a request ended. The engine makes exactly one for each request that it accepted.
struct Completion {
  absl::Status status;
  FinishReason finish_reason = FinishReason::kNone;
  std::string stop;              // the stop string that matched
  uint64_t seed = 0;             // of a generation
  std::vector<float> logprobs;   // of a score: natural log, one for each token but the first
  std::vector<float> embedding;  // of an embedding: [hidden_size]
  int64_t rows = 1;              // of a batch of tensors; a sequence is one
  Usage usage;
  Timings timings;
};

// Takes what the engine makes of one request. Called on the engine's thread, which must not wait:
// an implementation only hands over. No call is made after OnDone().
class ResponseSink {
 public:
  virtual ~ResponseSink() = default;

  // New text of a generation and the tokens that made it. `text` can lag behind the tokens (a stop
  // string that may be about to match is held back) and is empty then. Returns false when the
  // client reads too slowly: the sequence then rests until RequestHandle::Resume().
  virtual bool OnTokens(std::string_view text, std::span<const GeneratedToken> tokens) = 0;

  virtual void OnDone(Completion completion) = 0;
};

inline constexpr int kMostUrgent = 1, kDefaultPriority = 8, kLeastUrgent = 15;

struct Request {
  std::string id;  // for logs
  Task task = Task::kGenerate;
  std::vector<TokenId> tokens;  // the prompt or text, beginning-of-sequence token included
  // Of a prompt that comes in pieces: how many tokens will come by RequestHandle::Append().
  int64_t tokens_to_come = 0;
  GenerateOptions generate;  // for kGenerate
  bool normalize = true;     // for kEmbed: scale the embedding to length 1
  TimePoint deadline = TimePoint::max();
  int priority = kDefaultPriority;  // 1 goes first; within one, who came first
  std::shared_ptr<ResponseSink> sink;

  // Of the whole prompt or text.
  int64_t num_tokens() const { return static_cast<int64_t>(tokens.size()) + tokens_to_come; }
};

}  // namespace evaserve
