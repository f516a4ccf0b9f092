#include "client/fill_mask.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/commands/command.h"
#include "client/commands/json.h"

namespace evaserve {
namespace {

constexpr size_t kMaxTextsPerRequest = 32;

struct FillMaskFlags {
  std::vector<std::string> texts;
  FillMaskOptions options;
};

void PrintJson(const std::string& text, const std::vector<MaskGuesses>& masks) {
  nlohmann::ordered_json json = {{"text", text}, {"masks", nlohmann::json::array()}};
  for (size_t i = 0; i < masks.size(); ++i) {
    auto guesses = nlohmann::ordered_json::array();
    for (const MaskGuess& guess : masks[i]) {
      nlohmann::ordered_json one;
      SetBytes(one, "word", guess.word);
      one["token"] = guess.token;
      one["logprob"] = guess.logprob;
      SetBytes(one, "text", WithWord(text, i, guess.word));
      guesses.push_back(std::move(one));
    }
    json["masks"].push_back(std::move(guesses));
  }
  PrintBytes(ToLine(json));
}

void PrintGuesses(const std::string& text, const std::vector<MaskGuesses>& masks) {
  for (size_t i = 0; i < masks.size(); ++i) {
    for (const MaskGuess& guess : masks[i]) {
      PrintBytes(absl::StrCat(absl::StrFormat("%6.2f%%  ", std::exp(guess.logprob) * 100),
                              WithWord(text, i, guess.word), "\n"));
    }
  }
}

bool IsBlank(const std::string& text) { return absl::StripAsciiWhitespace(text).empty(); }

ExitCode RunFillMask(const FillMaskFlags& flags, const Session& session) {
  std::vector<std::string> texts = flags.texts;
  if (texts == std::vector<std::string>{"-"}) {
    auto lines = ReadLines();
    if (!lines.ok()) return FailUsage(std::string(lines.status().message()));
    texts = *std::move(lines);
    std::erase_if(texts, IsBlank);
  }
  for (const std::string& text : texts) {
    if (text.find(kMaskWord) != std::string::npos) continue;
    return FailUsage(absl::StrCat("\"", text, "\" has no ", std::string(kMaskWord)));
  }
  FillMaskOptions options = flags.options;
  options.model = session.flags.model;
  const auto max_texts = MaxTextsPerRequest(texts.size(), kMaxTextsPerRequest, session);
  if (!max_texts.ok()) return Fail(max_texts.status());
  for (size_t begin = 0; begin < texts.size(); begin += *max_texts) {
    const auto some = std::span(texts).subspan(begin, std::min(*max_texts, texts.size() - begin));
    const auto guesses = FillMasks(session.client, some, options, session.call);
    if (!guesses.ok()) return Fail(guesses.status());
    for (size_t i = 0; i < some.size(); ++i) {
      if (session.flags.json) {
        PrintJson(some[i], (*guesses)[i]);
      } else {
        PrintGuesses(some[i], (*guesses)[i]);
      }
    }
  }
  return kExitOk;
}

}  // namespace

Command AddFillMaskCommand(CLI::App& eva) {
  CLI::App& app = *eva.add_subcommand("fill-mask", "What may stand where texts have <mask>");
  auto flags = std::make_shared<FillMaskFlags>();
  app.add_option("TEXT", flags->texts, "Texts, or - for the lines of standard input")->required();
  app.add_option("--top-k", flags->options.top_k, "How many guesses for each mask; default: 5")
      ->check(CLI::Range(1, 1000));
  return {.app = &app,
          .run = [flags](const Session& session) { return RunFillMask(*flags, session); }};
}

}  // namespace evaserve
