#include "server/rpc/evaserve_requests.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/rpc/generate_checks.h"
#include "server/rpc/score.h"

namespace evaserve {
namespace {

absl::StatusOr<std::vector<TokenId>> EncodeText(const char* field, const std::string& text,
                                                const Tokenizer& tokenizer) {
  if (text.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, " is empty, it must have at least 1 byte"));
  }
  return tokenizer.Encode(text, /*parse_special=*/false);
}

absl::StatusOr<std::vector<TokenId>> EncodeInput(const v1::GenerateRequest& request,
                                                 const Tokenizer& tokenizer,
                                                 uint64_t bytes_to_come) {
  if (bytes_to_come > 0) {
    if (!tokenizer.ByteToken(0)) {
      return absl::InvalidArgumentError(
          absl::StrCat("bytes_to_come is ", bytes_to_come,
                       ", it must be 0 with this model, whose tokens are not bytes"));
    }
    if (request.has_chat()) {
      return absl::InvalidArgumentError(
          absl::StrCat("bytes_to_come is ", bytes_to_come,
                       ", it must be 0 with chat: only prompt comes in pieces"));
    }
    return tokenizer.Encode(request.prompt(), /*parse_special=*/false);
  }
  if (request.has_chat()) {
    std::vector<ChatMessage> messages;
    for (const v1::ChatMessage& message : request.chat().messages()) {
      messages.push_back({message.role(), message.content()});
    }
    return tokenizer.EncodeChat(messages);
  }
  if (!request.has_prompt()) {
    return absl::InvalidArgumentError("prompt and chat are both absent, one is required");
  }
  return EncodeText("prompt", request.prompt(), tokenizer);
}

absl::Status ReadLogitBias(const v1::SamplingParameters& from, const Tokenizer& tokenizer,
                           SamplingParams& sampling) {
  const bool has_byte_tokens = tokenizer.ByteToken(0).has_value();
  const uint32_t max_key = has_byte_tokens ? 255 : std::numeric_limits<TokenId>::max();
  for (const auto& [key, bias] : from.logit_bias()) {
    if (key > max_key) {
      return absl::InvalidArgumentError(absl::StrCat("logit_bias has key ", key, ", allowed are ",
                                                     has_byte_tokens ? "bytes" : "tokens",
                                                     ", 0 .. ", max_key));
    }
    const auto token = static_cast<TokenId>(key);  // in the vocabulary or not: the engine knows
    sampling.logit_bias.emplace_back(tokenizer.ByteToken(static_cast<uint8_t>(key)).value_or(token),
                                     bias);
  }
  // A map's order varies from one process to the next; the same request does the same everywhere.
  std::sort(sampling.logit_bias.begin(), sampling.logit_bias.end());
  return absl::OkStatus();
}

absl::Status ReadSampling(const v1::SamplingParameters& from, const Tokenizer& tokenizer,
                          SamplingParams& sampling) {
  if (from.has_temperature()) sampling.temperature = from.temperature();
  if (from.has_top_k()) {
    const auto top_k = CheckedInteger("top_k", from.top_k(), std::numeric_limits<int>::max());
    if (!top_k.ok()) return top_k.status();
    sampling.top_k = static_cast<int>(*top_k);
  }
  if (from.has_top_p()) sampling.top_p = from.top_p();
  if (from.has_min_p()) sampling.min_p = from.min_p();
  if (from.has_repetition_penalty()) sampling.repetition_penalty = from.repetition_penalty();
  if (from.has_seed()) sampling.seed = from.seed();
  return ReadLogitBias(from, tokenizer, sampling);
}

absl::Status ReadStopping(const v1::StoppingCriteria& from, GenerateOptions& options) {
  if (from.has_max_new_tokens()) {
    const auto max_new_tokens = CheckedInteger("max_new_tokens", from.max_new_tokens(),
                                               std::numeric_limits<int64_t>::max());
    if (!max_new_tokens.ok()) return max_new_tokens.status();
    options.max_new_tokens = *max_new_tokens;
  }
  options.stop.assign(from.stop().begin(), from.stop().end());
  options.include_stop = from.include_stop();
  options.ignore_eos = from.ignore_eos();
  return absl::OkStatus();
}

absl::Status ReadLogprobs(const v1::GenerateRequest& request, SamplingParams& sampling) {
  constexpr int64_t kMaxTopLogprobs = 20;
  if (request.top_logprobs() > 0 && !request.logprobs()) {
    return absl::InvalidArgumentError(absl::StrCat("top_logprobs is ", request.top_logprobs(),
                                                   ", it must be 0 unless logprobs is set"));
  }
  const auto top = CheckedInteger("top_logprobs", request.top_logprobs(), kMaxTopLogprobs);
  if (!top.ok()) return top.status();
  sampling.top_logprobs = static_cast<int>(*top);
  return absl::OkStatus();
}

void FillLogprob(const TokenLogprob& from, const Tokenizer& tokenizer, v1::TokenLogprob& to) {
  to.set_token(static_cast<uint32_t>(from.token));
  to.set_bytes(std::string(tokenizer.Decode(from.token)));
  to.set_control_token(std::string(tokenizer.SpecialName(from.token)));
  to.set_logprob(from.logprob);
}

void FillUsage(const Usage& from, v1::Usage& to) {
  to.set_prompt_tokens(static_cast<uint64_t>(from.prompt_tokens));
  to.set_new_tokens(static_cast<uint64_t>(from.new_tokens));
  to.set_new_bytes(static_cast<uint64_t>(from.new_bytes));
}

double Seconds(std::chrono::microseconds duration) {
  return std::chrono::duration<double>(duration).count();
}

v1::FinishReason ToWire(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return v1::FINISH_REASON_UNSPECIFIED;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::kEos:
      return v1::FINISH_REASON_EOS;
    case FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

}  // namespace

int PriorityOf(uint32_t priority) {
  if (priority == 0) return kDefaultPriority;
  return static_cast<int>(std::min<uint32_t>(priority, kLeastUrgent + 1));
}

absl::StatusOr<Request> MakeRequest(const v1::GenerateRequest& request, const ModelInfo& info,
                                    const Tokenizer& tokenizer, uint64_t bytes_to_come) {
  const auto tokens_to_come =
      CheckedInteger("bytes_to_come", bytes_to_come, std::numeric_limits<int32_t>::max());
  if (!tokens_to_come.ok()) return tokens_to_come.status();
  Request result;
  result.priority = PriorityOf(request.priority());
  result.tokens_to_come = *tokens_to_come;  // a byte each
  GenerateOptions& options = result.generate;
  options.sampling = info.default_sampling;
  if (absl::Status status = ReadSampling(request.sampling(), tokenizer, options.sampling);
      !status.ok()) {
    return status;
  }
  if (absl::Status status = ReadLogprobs(request, options.sampling); !status.ok()) return status;
  if (absl::Status status = ReadStopping(request.stopping(), options); !status.ok()) return status;
  if (absl::Status status = CheckGenerateOptions(options); !status.ok()) return status;

  absl::StatusOr<std::vector<TokenId>> tokens = EncodeInput(request, tokenizer, bytes_to_come);
  if (!tokens.ok()) return tokens.status();
  result.tokens = *std::move(tokens);
  return result;
}

absl::StatusOr<Request> MakeRequest(const v1::ScoreRequest& request, const Tokenizer& tokenizer) {
  absl::StatusOr<std::vector<TokenId>> tokens = EncodeText("text", request.text(), tokenizer);
  if (!tokens.ok()) return tokens.status();
  Request result;
  result.task = Task::kScore;
  result.priority = PriorityOf(request.priority());
  result.tokens = *std::move(tokens);
  return result;
}

absl::StatusOr<Request> MakeRequest(const v1::EmbedRequest& request, const Tokenizer& tokenizer) {
  absl::StatusOr<std::vector<TokenId>> tokens = EncodeText("text", request.text(), tokenizer);
  if (!tokens.ok()) return tokens.status();
  Request result;
  result.task = Task::kEmbed;
  result.priority = PriorityOf(request.priority());
  result.tokens = *std::move(tokens);
  result.normalize = !request.unnormalized();
  return result;
}

std::vector<TokenId> EncodePiece(std::string_view bytes, const Tokenizer& tokenizer) {
  std::vector<TokenId> tokens;
  tokens.reserve(bytes.size());
  for (char c : bytes) tokens.push_back(*tokenizer.ByteToken(static_cast<uint8_t>(c)));
  return tokens;
}

int64_t InputBytes(const v1::GenerateRequest& request) {
  size_t bytes = request.prompt().size();
  for (const v1::ChatMessage& message : request.chat().messages())
    bytes += message.content().size();
  return static_cast<int64_t>(bytes);
}

void AddToken(const GeneratedToken& token, const Tokenizer& tokenizer,
              v1::GenerateResponse& response) {
  v1::GeneratedToken& to = *response.add_tokens();
  FillLogprob(token.sample.chosen, tokenizer, *to.mutable_chosen());
  for (const TokenLogprob& top : token.sample.top) FillLogprob(top, tokenizer, *to.add_top());
}

void FillTimings(const Timings& from, v1::Timings& to) {
  to.set_queue_seconds(Seconds(from.queue));
  to.set_first_token_seconds(Seconds(from.first_token));
  to.set_total_seconds(Seconds(from.total));
}

void FillFinish(const Completion& completion, v1::Finish& finish) {
  finish.set_reason(ToWire(completion.finish_reason));
  finish.set_stop(completion.stop);
  finish.set_seed(completion.seed);
  FillUsage(completion.usage, *finish.mutable_usage());
  FillTimings(completion.timings, *finish.mutable_timings());
}

void FillScore(const Completion& completion, const v1::ScoreRequest& request,
               v1::ScoreResponse& response) {
  const TextScore score =
      ScoreText(completion.logprobs, static_cast<int64_t>(request.text().size()));
  response.set_log_likelihood(score.log_likelihood);
  response.set_bits_per_byte(score.bits_per_byte);
  if (request.per_byte()) {
    response.mutable_logprobs()->Add(completion.logprobs.begin(), completion.logprobs.end());
  }
  FillUsage(completion.usage, *response.mutable_usage());
  FillTimings(completion.timings, *response.mutable_timings());
}

void FillEmbedding(const Completion& completion, v1::EmbedResponse& response) {
  response.mutable_embedding()->Add(completion.embedding.begin(), completion.embedding.end());
  FillUsage(completion.usage, *response.mutable_usage());
  FillTimings(completion.timings, *response.mutable_timings());
}

}  // namespace evaserve
