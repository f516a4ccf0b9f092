#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/commands/command.h"
#include "client/commands/json.h"

namespace evaserve {
namespace {

struct LogitBias {
  uint32_t token = 0;
  float bias = 0.f;
};

// Reads TOKEN:BIAS, for CLI11.
std::istream& operator>>(std::istream& in, LogitBias& bias) {
  char colon = 0;
  in >> bias.token >> colon >> bias.bias;
  if (colon != ':') in.setstate(std::ios::failbit);
  return in;
}

struct GenerateFlags {
  std::optional<std::string> prompt;
  std::optional<std::string> file;
  std::string system;
  bool chat = false;

  std::optional<double> temperature;
  std::optional<uint32_t> top_k;
  std::optional<double> top_p;
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
  std::optional<uint64_t> seed;
  std::vector<LogitBias> logit_bias;

  std::optional<uint64_t> max_new_tokens;
  std::vector<std::string> stop;
  bool include_stop = false;
  bool ignore_eos = false;

  bool logprobs = false;
  uint32_t top_logprobs = 0;
  std::string request_id;
  bool stats = false;
};

void AddInputFlags(CLI::App& app, GenerateFlags& flags) {
  auto* prompt =
      app.add_option("PROMPT", flags.prompt, "Text to continue, or - for standard input");
  app.add_option("-f,--file", flags.file, "Continue the text of this file")->excludes(prompt);
  app.add_flag("--chat", flags.chat, "The text is a user's message, for models that chat");
  app.add_option("--system", flags.system, "System message before the user's; implies --chat");
}

void AddSamplingFlags(CLI::App& app, GenerateFlags& flags) {
  const std::string group = "Sampling (the model's own defaults where absent)";
  app.add_option("-t,--temperature", flags.temperature, "0 takes the most likely byte")
      ->group(group);
  app.add_option("--top-k", flags.top_k, "Keep the k most likely; 0 keeps all")->group(group);
  app.add_option("--top-p", flags.top_p, "Keep the likeliest of this total probability, (0, 1]")
      ->group(group);
  app.add_option("--min-p", flags.min_p, "Keep those at least this likely relative to the best")
      ->group(group);
  app.add_option("--repetition-penalty", flags.repetition_penalty, "1 changes nothing")
      ->group(group);
  app.add_option("--seed", flags.seed, "The same seed gives the same text")->group(group);
  app.add_option("--logit-bias", flags.logit_bias,
                 "TOKEN:BIAS, of a byte, 0 to 255, or of a token of a model of words; -100 to 100; "
                 "may be given several times")
      ->allow_extra_args(false)
      ->group(group);
}

void AddStoppingFlags(CLI::App& app, GenerateFlags& flags) {
  const std::string group = "Stopping";
  app.add_option("-n,--max-tokens", flags.max_new_tokens, "Bytes at most; 256 if absent")
      ->group(group);
  app.add_option("--stop", flags.stop, "End before this text; may be given several times")
      ->allow_extra_args(false)
      ->group(group);
  app.add_flag("--include-stop", flags.include_stop, "Keep the stop text")->group(group);
  app.add_flag("--ignore-eos", flags.ignore_eos, "Go on after the model ends its text")
      ->group(group);
}

void AddOutputFlags(CLI::App& app, GenerateFlags& flags) {
  const std::string group = "Output";
  app.add_flag("--logprobs", flags.logprobs, "A line per token: log-probability and bytes")
      ->group(group);
  app.add_option("--top-logprobs", flags.top_logprobs,
                 "As many of the most likely tokens beside each; implies --logprobs")
      ->group(group);
  app.add_option("--request-id", flags.request_id, "Name of the request in the server's log")
      ->group(group);
  app.add_flag("--stats", flags.stats, "Speed and usage to standard error at the end")
      ->group(group);
}

void SetInput(const GenerateFlags& flags, std::string text, v1::GenerateRequest& request) {
  if (!flags.chat && flags.system.empty()) {
    request.set_prompt(std::move(text));
    return;
  }
  if (!flags.system.empty()) {
    v1::ChatMessage& system = *request.mutable_chat()->add_messages();
    system.set_role("system");
    system.set_content(flags.system);
  }
  v1::ChatMessage& user = *request.mutable_chat()->add_messages();
  user.set_role("user");
  user.set_content(std::move(text));
}

v1::SamplingParameters ToSampling(const GenerateFlags& flags) {
  v1::SamplingParameters sampling;
  if (flags.temperature) sampling.set_temperature(*flags.temperature);
  if (flags.top_k) sampling.set_top_k(*flags.top_k);
  if (flags.top_p) sampling.set_top_p(*flags.top_p);
  if (flags.min_p) sampling.set_min_p(*flags.min_p);
  if (flags.repetition_penalty) sampling.set_repetition_penalty(*flags.repetition_penalty);
  if (flags.seed) sampling.set_seed(*flags.seed);
  for (const LogitBias& bias : flags.logit_bias) {
    (*sampling.mutable_logit_bias())[bias.token] = bias.bias;
  }
  return sampling;
}

v1::StoppingCriteria ToStopping(const GenerateFlags& flags) {
  v1::StoppingCriteria stopping;
  if (flags.max_new_tokens) stopping.set_max_new_tokens(*flags.max_new_tokens);
  for (const std::string& stop : flags.stop) stopping.add_stop(stop);
  stopping.set_include_stop(flags.include_stop);
  stopping.set_ignore_eos(flags.ignore_eos);
  return stopping;
}

v1::GenerateRequest ToRequest(const GenerateFlags& flags, const std::string& model,
                              std::string text) {
  v1::GenerateRequest request;
  request.set_model(model);
  SetInput(flags, std::move(text), request);
  *request.mutable_sampling() = ToSampling(flags);
  *request.mutable_stopping() = ToStopping(flags);
  request.set_logprobs(flags.logprobs || flags.top_logprobs > 0);
  request.set_top_logprobs(flags.top_logprobs);
  request.set_request_id(flags.request_id);
  return request;
}

std::string TokenText(const v1::TokenLogprob& token) {
  const std::string text =
      token.control_token().empty() ? "\"" + Escape(token.bytes()) + "\"" : token.control_token();
  return absl::StrFormat("%9.4f %s", token.logprob(), text);
}

void PrintTokens(const v1::GenerateResponse& response) {
  for (const v1::GeneratedToken& token : response.tokens()) {
    std::string line = TokenText(token.chosen());
    for (const v1::TokenLogprob& top : token.top()) line += "  |" + TokenText(top);
    PrintBytes(line + "\n");
  }
}

void PrintStats(const v1::Finish& finish, absl::Duration first_byte, absl::Duration total) {
  const double seconds = absl::ToDoubleSeconds(total);
  std::cerr << absl::StrFormat(
      "%d bytes in %.3f s, %.0f bytes/s, first byte after %.1f ms; finish %s, prompt %d tokens, "
      "queue %.1f ms, seed %d\n",
      finish.usage().new_bytes(), seconds, finish.usage().new_bytes() / seconds,
      absl::ToDoubleMilliseconds(first_byte), FinishReasonName(finish.reason()),
      finish.usage().prompt_tokens(), finish.timings().queue_seconds() * 1e3, finish.seed());
}

// What came of an answer so far, seen from here.
struct Progress {
  absl::Time first_byte = absl::InfiniteFuture();
  v1::Finish finish;
};

Progress PrintAnswer(GenerateStream& stream, bool json, bool logprobs) {
  Progress progress;
  while (std::optional<v1::GenerateResponse> response = stream.Next()) {
    if (!response->text().empty()) progress.first_byte = std::min(progress.first_byte, absl::Now());
    if (json) {
      PrintBytes(ToLine(ToJson(*response)));
    } else if (logprobs) {
      PrintTokens(*response);
    } else {
      PrintBytes(response->text());
    }
    if (response->has_finish()) progress.finish = response->finish();
  }
  if (!json && isatty(STDOUT_FILENO)) PrintBytes("\n");
  return progress;
}

absl::StatusOr<std::string> ReadText(const GenerateFlags& flags) {
  if (flags.file) return ReadInput(*flags.file);
  if (!flags.prompt) return absl::InvalidArgumentError("generate needs a PROMPT, a --file or -");
  return flags.prompt == "-" ? ReadInput("-") : *flags.prompt;
}

ExitCode RunGenerate(const GenerateFlags& flags, const Session& session) {
  auto text = ReadText(flags);
  if (!text.ok()) return FailUsage(std::string(text.status().message()));
  const auto request = ToRequest(flags, session.flags.model, *std::move(text));
  const absl::Time start = absl::Now();
  GenerateStream stream = session.client.Generate(request, session.call);
  const Progress progress = PrintAnswer(stream, session.flags.json, request.logprobs());
  if (absl::Status status = stream.Finish(); !status.ok()) return Fail(status);
  if (flags.stats) PrintStats(progress.finish, progress.first_byte - start, absl::Now() - start);
  return kExitOk;
}

}  // namespace

Command AddGenerateCommand(CLI::App& eva) {
  CLI::App& app = *eva.add_subcommand("generate", "Continue a text, streamed as it is made");
  auto flags = std::make_shared<GenerateFlags>();
  AddInputFlags(app, *flags);
  AddSamplingFlags(app, *flags);
  AddStoppingFlags(app, *flags);
  AddOutputFlags(app, *flags);
  return {.app = &app,
          .run = [flags](const Session& session) { return RunGenerate(*flags, session); }};
}

}  // namespace evaserve
