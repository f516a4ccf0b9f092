#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/commands/command.h"
#include "client/commands/json.h"
#include "client/translation.h"

namespace evaserve {
namespace {

// Texts of one request: enough to be decoded together.
constexpr size_t kTextsPerRequest = 32;

struct TranslateFlags {
  std::vector<std::string> texts;
  TranslateOptions options;
};

// The lines of standard input that are not blank.
absl::StatusOr<std::vector<std::string>> ReadLines() {
  const auto input = ReadInput("-");
  if (!input.ok()) return input.status();
  std::vector<std::string> lines;
  for (const absl::string_view line : absl::StrSplit(*input, '\n')) {
    if (line.find_first_not_of(" \t\r") != absl::string_view::npos) lines.emplace_back(line);
  }
  return lines;
}

void PrintTranslation(const std::string& text, const Translation& translation, bool as_json) {
  if (!as_json) return PrintBytes(absl::StrCat(translation.text, "\n"));
  PrintBytes(ToLine(nlohmann::ordered_json{
      {"text", text}, {"translation", translation.text}, {"score", translation.score}}));
}

ExitCode RunTranslate(const TranslateFlags& flags, const Session& session) {
  std::vector<std::string> texts = flags.texts;
  if (texts.empty())
    return FailUsage("translate needs a TEXT, or - for the lines of standard input");
  if (texts == std::vector<std::string>{"-"}) {
    auto lines = ReadLines();
    if (!lines.ok()) return FailUsage(std::string(lines.status().message()));
    texts = *std::move(lines);
  }
  TranslateOptions options = flags.options;
  options.model = session.flags.model;
  for (size_t begin = 0; begin < texts.size(); begin += kTextsPerRequest) {
    const auto some =
        std::span(texts).subspan(begin, std::min(kTextsPerRequest, texts.size() - begin));
    const auto translations = Translate(session.client, some, options, session.call);
    if (!translations.ok()) return Fail(translations.status());
    for (size_t i = 0; i < some.size(); ++i) {
      PrintTranslation(some[i], (*translations)[i], session.flags.json);
    }
  }
  return kExitOk;
}

}  // namespace

Command AddTranslateCommand(CLI::App& eva) {
  CLI::App& app = *eva.add_subcommand("translate", "Texts in another language, one per line");
  auto flags = std::make_shared<TranslateFlags>();
  app.add_option("TEXT", flags->texts, "Texts, or - for the lines of standard input");
  app.add_option("--beam-size", flags->options.beam_size,
                 "How many hypotheses are followed; default: the model's");
  app.add_option("--length-penalty", flags->options.length_penalty,
                 "Scores are divided by length to the power of this; larger favours longer "
                 "translations; default: the model's");
  app.add_option("--max-tokens", flags->options.max_tokens,
                 "The longest translation; default: the model's");
  return {.app = &app,
          .run = [flags](const Session& session) { return RunTranslate(*flags, session); }};
}

}  // namespace evaserve
