#include <cstdint>
#include <memory>
#include <optional>

#include "absl/strings/str_format.h"
#include "client/commands/command.h"
#include "client/commands/json.h"
#include "client/document_tokens.h"
#include "client/score_document.h"

namespace evaserve {
namespace {

struct ScoreFlags {
  std::string file;
  std::optional<size_t> context;
  int concurrency = 4;
  bool per_byte = false;
};

void PrintJson(const DocumentScore& score, std::string_view document, bool per_byte) {
  nlohmann::ordered_json json = {{"bytes", document.size()},
                                 {"requests", score.num_pieces},
                                 {"log_likelihood", score.log_likelihood},
                                 {"bits_per_byte", score.bits_per_byte}};
  if (per_byte) json["logprobs"] = score.logprobs;
  PrintBytes(ToLine(json));
}

void PrintText(const DocumentScore& score, std::string_view document, bool per_byte) {
  if (per_byte) {
    const DocumentTokens tokens(document, score.tokens_are_bytes);
    for (size_t i = 0; i < tokens.size(); ++i) {
      PrintBytes(
          absl::StrFormat("%9.4f \"%s\"\n", score.logprobs[i], Escape(tokens.Bytes(i, i + 1))));
    }
  }
  PrintBytes(absl::StrFormat("%.4f bits per byte (%d bytes, log-likelihood %.3f, %d requests)\n",
                             score.bits_per_byte, document.size(), score.log_likelihood,
                             score.num_pieces));
}

ExitCode RunScore(const ScoreFlags& flags, const Session& session) {
  auto document = ReadInput(flags.file);
  if (!document.ok()) return FailUsage(std::string(document.status().message()));
  const auto score = ScoreDocument(session.client, *document,
                                   {.model = session.flags.model,
                                    .context = flags.context,
                                    .max_concurrency = flags.concurrency,
                                    .call = session.call});
  if (!score.ok()) return Fail(score.status());
  if (session.flags.json) {
    PrintJson(*score, *document, flags.per_byte);
  } else {
    PrintText(*score, *document, flags.per_byte);
  }
  return kExitOk;
}

}  // namespace

Command AddScoreCommand(CLI::App& eva) {
  CLI::App& app = *eva.add_subcommand(
      "score", "How likely a document is, in bits per byte, over exactly all of its bytes");
  auto flags = std::make_shared<ScoreFlags>();
  app.add_option("FILE", flags->file, "The document, or - for standard input")->required();
  app.add_option(
      "--context", flags->context,
      "Bytes, or words of a model of words, to look back at before each piece of a document "
      "that is longer than the model takes at once; half of what it takes if absent");
  app.add_option("--concurrency", flags->concurrency, "Pieces on their way at the same time")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app.add_flag("--per-byte", flags->per_byte,
               "The natural log-probability of every byte, or word, too");
  return {.app = &app,
          .run = [flags](const Session& session) { return RunScore(*flags, session); }};
}

}  // namespace evaserve
