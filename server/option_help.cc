#include "server/option_help.h"

#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/config_options.h"

namespace evaserve {
namespace {

constexpr size_t kHelpWidth = 80;

std::string DefaultOf(const CLI::Option& option) {
  if (option.get_envname().empty()) return "";
  const bool is_flag = option.get_items_expected_max() == 0;
  if (is_flag) return "false";
  const std::string value = option.get_default_str();
  return value == "[]" ? "" : value;
}

OptionHelp HelpOf(const CLI::Option& option) {
  return {.flag = "--" + option.get_lnames().front(),
          .environment = option.get_envname(),
          .default_value = DefaultOf(option),
          .description = option.get_description()};
}

// `text` in lines of at most kHelpWidth, each after `indent`.
std::string Wrapped(const std::string& text, const std::string& indent) {
  std::string all;
  std::string line;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    if (!line.empty() && line.size() + 1 + word.size() > kHelpWidth) {
      absl::StrAppend(&all, line, "\n");
      line.clear();
    }
    absl::StrAppend(&line, line.empty() ? indent : " ", word);
  }
  return absl::StrCat(all, line, "\n");
}

// Between two bars of a table.
std::string Cell(const std::string& text) {
  return text.empty() ? " " : absl::StrCat(" ", text, " ");
}

std::string Quoted(const std::string& value) { return absl::StrCat("`", value, "`"); }

std::string RowOf(const OptionHelp& help) {
  std::string environment;
  std::string default_value;
  if (!help.environment.empty()) {
    environment = Quoted(help.environment);
    default_value = help.default_value.empty() ? "none" : Quoted(help.default_value);
  }
  return absl::StrCat("|", Cell(Quoted(help.flag)), "|", Cell(environment), "|",
                      Cell(default_value), "|", Cell(help.description), "|\n");
}

}  // namespace

std::vector<OptionHelp> OptionHelps() {
  Config config;
  TextValues text;
  CLI::App app;
  DeclareOptions(app, config, text);
  std::vector<OptionHelp> helps;
  for (const CLI::Option* option : app.get_options()) helps.push_back(HelpOf(*option));
  return helps;
}

std::string OptionTable() {
  std::string table =
      "| option | environment | default | what it does |\n| --- | --- | --- | --- |\n";
  for (const OptionHelp& help : OptionHelps()) {
    absl::StrAppend(&table, RowOf(help));
  }
  return table;
}

std::string HelpFormatter::make_option(const CLI::Option* option, bool /*is_positional*/) const {
  const OptionHelp help = HelpOf(*option);
  std::string text = absl::StrCat("  ", help.flag);
  if (!help.environment.empty()) {
    const std::string& value = help.default_value;
    absl::StrAppend(&text, " (", help.environment, value.empty() ? "" : "; default ", value, ")");
  }
  return absl::StrCat(text, "\n",
                      Wrapped(absl::StrReplaceAll(help.description, {{"`", ""}}), "      "));
}

}  // namespace evaserve
