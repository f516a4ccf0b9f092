#include "models/text/moses.h"

#include <re2/re2.h>

#include <algorithm>
#include <deque>
#include <initializer_list>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "models/io/mapped_file.h"
#include "models/text/words.h"

namespace evaserve {
namespace {

// In patterns below, inside of brackets. Space is what Python's \s and split() take for it.
std::string Expand(const char* pattern) {
  return absl::StrReplaceAll(
      pattern, {{"<space>", R"(\t\n\v\f\r\x{1c}-\x{1f}\x{85}\pZ)"},
                {"<alpha>", R"(\pL\p{Nl}\x{345})"},
                {"<alnum>", R"(\pL\p{Nl}\p{Nd}\x{345})"},
                {"<lower>", R"(\p{Ll}\x{aa}\x{ba}\x{2170}-\x{217f}\x{24d0}-\x{24e9})"}});
}

re2::StringPiece Piece(std::string_view text) { return {text.data(), text.size()}; }

// Replacements, one after the other.
class Rules {
 public:
  Rules(std::initializer_list<std::pair<const char*, const char*>> rules) {
    for (const auto& [pattern, rewrite] : rules) rules_.emplace_back(Expand(pattern), rewrite);
  }

  void Apply(std::string& text) const {
    for (const auto& [pattern, rewrite] : rules_) RE2::GlobalReplace(&text, pattern, rewrite);
  }

 private:
  struct Rule {
    Rule(const std::string& pattern, const char* rewrite) : pattern(pattern), rewrite(rewrite) {}
    RE2 pattern;
    std::string rewrite;
  };

  std::deque<Rule> rules_;
};

bool Matches(std::string_view text, const RE2& pattern) {
  return RE2::PartialMatch(Piece(text), pattern);
}

// A run of dots becomes " DOT...DOTMULTI", a DOT for each, that the rules do not touch.
void HideDots(std::string& text) {
  static const RE2 run_of_dots(R"((\.\.+))");
  re2::StringPiece rest = text, dots;
  std::string hidden;
  const char* begin = text.data();
  while (RE2::FindAndConsume(&rest, run_of_dots, &dots)) {
    absl::StrAppend(&hidden, std::string(begin, dots.data()), " ");
    for (size_t i = 0; i < dots.size(); ++i) hidden += "DOT";
    hidden += "MULTI";
    if (!rest.empty()) hidden += ' ';
    begin = rest.data();
  }
  hidden.append(begin, text.data() + text.size() - begin);
  text = std::move(hidden);
}

void ShowDots(std::string& text) {
  static const RE2 hidden_dots("((?:DOT)+)MULTI");
  re2::StringPiece rest = text, dots;
  std::string shown;
  const char* begin = text.data();
  while (RE2::FindAndConsume(&rest, hidden_dots, &dots)) {
    shown.append(begin, dots.data() - begin);
    shown.append(dots.size() / 3, '.');
    begin = rest.data();
  }
  shown.append(begin, text.data() + text.size() - begin);
  text = std::move(shown);
}

void SplitApostrophes(Language language, std::string& text) {
  static const Rules english = {{"([^<alpha>])'([^<alpha>])", R"(\1 ' \2)"},
                                {R"(([^<alpha>\pN])'([<alpha>]))", R"(\1 ' \2)"},
                                {"([<alpha>])'([^<alpha>])", R"(\1 ' \2)"},
                                {"([<alpha>])'([<alpha>])", R"(\1 '\2)"},
                                {R"((\pN)'(s))", R"(\1 '\2)"}};
  static const Rules other = {{"'", " ' "}};
  (language == Language::kEnglish ? english : other).Apply(text);
}

std::string Escaped(const std::string& text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"},
                                    {"|", "&#124;"},
                                    {"<", "&lt;"},
                                    {">", "&gt;"},
                                    {"'", "&apos;"},
                                    {"\"", "&quot;"},
                                    {"[", "&#91;"},
                                    {"]", "&#93;"}});
}

}  // namespace

std::vector<std::string> SplitAtSpace(std::string_view text) {
  const std::vector<std::string_view> words = SplitWords(text);
  return {words.begin(), words.end()};
}

std::vector<std::string> MosesTokenizer::Tokenize(std::string_view line) const {
  static const Rules junk = {{"[<space>]+", " "}, {R"([\x00-\x1f])", ""}, {"^ +| +$", ""}};
  static const Rules special = {{R"(([^<alnum><space>.'`,\-]))", R"( \1 )"}};
  // What is left of the second hyphen is part of the first one's match: hence twice.
  static const Rules hyphens = {{"([<alnum>])-([<alnum>])", R"(\1 @-@ \2)"},
                                {"([<alnum>])-([<alnum>])", R"(\1 @-@ \2)"}};
  static const Rules commas = {
      {R"(([^\pN]),)", R"(\1 , )"}, {R"(,([^\pN]))", R"( , \1)"}, {R"((\pN),$)", R"(\1 , )"}};
  static const Rules last_stop = {{R"(\.' ?$)", " . ' "}};
  std::string text(line);
  junk.Apply(text);
  special.Apply(text);
  if (options_.splits_hyphens) hyphens.Apply(text);
  HideDots(text);
  commas.Apply(text);
  SplitApostrophes(options_.language, text);
  text = SplitFullStops(text);
  last_stop.Apply(text);
  ShowDots(text);
  return SplitAtSpace(Escaped(text));
}

// A full stop at the end of a word is a token, unless it belongs to the word.
std::string MosesTokenizer::SplitFullStops(std::string_view text) const {
  std::vector<std::string> words = SplitAtSpace(text);
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string_view word = words[i];
    if (word.size() < 2 || !word.ends_with('.')) continue;
    const std::string_view next = i + 1 < words.size() ? words[i + 1] : std::string_view();
    const std::string prefix(word.substr(0, word.size() - 1));
    if (!EndsWithPrefix(prefix, next)) words[i] = prefix + " .";
  }
  return absl::StrJoin(words, " ");
}

bool MosesTokenizer::EndsWithPrefix(std::string_view word, std::string_view next) const {
  static const RE2 alpha(Expand("[<alpha>]")), lower(Expand("^[<lower>]"));
  if (word.find('.') != std::string_view::npos && Matches(word, alpha)) return true;
  const bool is_numeric = options_.numeric_prefixes.contains(word);
  if ((options_.prefixes.contains(word) && !is_numeric) || Matches(next, lower)) return true;
  return is_numeric && !next.empty() && next[0] >= '0' && next[0] <= '9';
}

absl::Status ReadNonbreakingPrefixes(const std::filesystem::path& path,
                                     MosesTokenizer::Options& options) {
  static const RE2 prefix_line(
      Expand("^[<space>]*([^#<space>][^<space>]*)([<space>]+#NUMERIC_ONLY#)?"));
  const absl::StatusOr<MappedFile> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  re2::StringPiece rest(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
  while (!rest.empty()) {
    const re2::StringPiece line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    std::string word;
    re2::StringPiece numeric;
    if (!RE2::PartialMatch(line, prefix_line, &word, &numeric)) continue;
    (numeric.empty() ? options.prefixes : options.numeric_prefixes).insert(word);
  }
  return absl::OkStatus();
}

namespace {

std::string Unescaped(const std::string& text) {
  // Not all at once: "&amp;lt;" stands for "<" there.
  static constexpr std::pair<const char*, const char*> kEscapes[] = {
      {"&bar;", "|"}, {"&#124;", "|"}, {"&lt;", "<"},    {"&gt;", ">"},
      {"&bra;", "["}, {"&ket;", "]"},  {"&quot;", "\""}, {"&apos;", "'"},
      {"&#91;", "["}, {"&#93;", "]"},  {"&amp;", "&"}};
  std::string result = text;
  for (const auto& escape : kEscapes) result = absl::StrReplaceAll(result, {escape});
  return result;
}

// Puts tokens together.
class Detokenizer {
 public:
  explicit Detokenizer(Language language) : language_(language) {}

  void Add(const std::string& token, const std::string& previous) {
    static const RE2 opening(R"(^[\p{Sc}(\[{¿¡]+$)"), closing(R"(^[,.?!:;\\%}\])]+$)");
    static const RE2 contraction(Expand("^'[<alpha>]")), quotes(R"(^['"„“`]+$)");
    if (Matches(token, opening)) return Append(token, true, false);
    if (Matches(token, closing)) return Append(token, false, true);
    const bool is_english = language_ == Language::kEnglish;
    if (is_english && !previous.empty() && Matches(token, contraction)) {
      return Append(token, false, true);
    }
    if (!Matches(token, quotes)) return Append(token, true, true);
    AddQuote(token, is_english && token == "'" && previous.ends_with('s'));
  }

  const std::string& text() const { return text_; }

 private:
  void AddQuote(const std::string& token, bool ends_possessive) {
    static const RE2 curly("^[„“]+$");
    bool& is_open = is_open_[Matches(token, curly) ? "\"" : token];
    if (!is_open && ends_possessive) return Append(token, false, true);
    Append(token, !is_open, is_open);
    is_open = !is_open;
  }

  void Append(const std::string& token, bool has_space_before, bool has_space_after) {
    if (has_space_before && wants_space_) text_ += ' ';
    text_ += token;
    wants_space_ = has_space_after;
  }

  const Language language_;
  std::string text_;
  bool wants_space_ = false;
  std::map<std::string, bool> is_open_;  // by quotation mark
};

}  // namespace

std::string MosesDetokenize(std::span<const std::string> tokens, Language language) {
  const std::string text = absl::StrCat(" ", absl::StrJoin(tokens, " "), " ");
  const std::vector<std::string> words =
      SplitAtSpace(Unescaped(absl::StrReplaceAll(text, {{" @-@ ", "-"}})));
  Detokenizer detokenizer(language);
  for (size_t i = 0; i < words.size(); ++i) {
    detokenizer.Add(words[i], i == 0 ? std::string() : words[i - 1]);
  }
  return detokenizer.text();
}

}  // namespace evaserve
