#include <algorithm>
#include <cstddef>
#include <iterator>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/commands/command.h"
#include "client/commands/json.h"
#include "client/translation.h"

namespace evaserve {
namespace {

// Of one request: enough to be decoded together, and what the server allows to any beam. A model
// may allow fewer texts.
constexpr size_t kMaxHypothesesPerRequest = 128;
constexpr size_t kMaxTextsPerRequest = 64;
constexpr int kUsualBeamSize = 8;  // or less; which one the model has is not known here
constexpr size_t kMaxBytesPerRequest = 1 << 17;

struct TranslateFlags {
  std::vector<std::string> texts;
  TranslateOptions options;
};

// At most so many hypotheses are followed together, but at least those of one text.
size_t MaxTexts(const TranslateOptions& options) {
  const int beam_size = std::max(options.beam_size.value_or(kUsualBeamSize), 1);
  return std::clamp(kMaxHypothesesPerRequest / static_cast<size_t>(beam_size), size_t{1},
                    kMaxTextsPerRequest);
}

// Those at the beginning that go together, at least one.
std::span<const std::string> FirstRequest(std::span<const std::string> texts, size_t max_texts) {
  size_t count = 0;
  for (size_t bytes = 0; count < std::min(texts.size(), max_texts); ++count) {
    bytes += texts[count].size();
    if (count > 0 && bytes > kMaxBytesPerRequest) break;
  }
  return texts.first(count);
}

bool IsBlank(const std::string& text) { return absl::StripAsciiWhitespace(text).empty(); }

void PrintTranslation(const std::string& text, const Translation& translation, bool as_json) {
  if (!as_json) return PrintBytes(absl::StrCat(translation.text, "\n"));
  nlohmann::ordered_json json;
  SetBytes(json, "text", text);
  SetBytes(json, "translation", translation.text);
  if (!IsBlank(text)) json["score"] = translation.score;
  PrintBytes(ToLine(json));
}

// Of each text; a blank one is its own translation, so that lines stay beside theirs.
absl::StatusOr<std::vector<Translation>> TranslateTexts(std::span<const std::string> texts,
                                                        const TranslateOptions& options,
                                                        const Session& session) {
  std::vector<std::string> words;
  std::ranges::remove_copy_if(texts, std::back_inserter(words), IsBlank);
  absl::StatusOr<std::vector<Translation>> translations = std::vector<Translation>();
  if (!words.empty()) translations = Translate(session.client, words, options, session.call);
  if (!translations.ok()) return translations;
  for (size_t i = 0; i < texts.size(); ++i) {
    if (IsBlank(texts[i]))
      translations->insert(translations->begin() + static_cast<std::ptrdiff_t>(i), Translation{});
  }
  return translations;
}

// The server counts the rows of its request.
absl::Status InTexts(size_t first, size_t last, const absl::Status& status) {
  if (first == last) return status;
  return {status.code(), absl::StrCat("in texts ", first, " to ", last,
                                      ", blank ones not counted: ", status.message())};
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
  const auto max_texts = MaxTextsPerRequest(texts.size(), MaxTexts(options), session);
  if (!max_texts.ok()) return Fail(max_texts.status());
  for (size_t begin = 0; begin < texts.size();) {
    const auto some = FirstRequest(std::span(texts).subspan(begin), *max_texts);
    const auto translations = TranslateTexts(some, options, session);
    if (!translations.ok())
      return Fail(InTexts(begin + 1, begin + some.size(), translations.status()));
    for (size_t i = 0; i < some.size(); ++i) {
      PrintTranslation(some[i], (*translations)[i], session.flags.json);
    }
    begin += some.size();
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
