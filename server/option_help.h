#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace evaserve {

// What there is to tell about an option.
struct OptionHelp {
  std::string flag;           // "--address"
  std::string environment;    // its variable; empty for --help and --version
  std::string default_value;  // empty: there is none
  std::string description;    // with names and values in `backquotes`
};

// Every option of evaserve, in the order of --help.
std::vector<OptionHelp> OptionHelps();

// OptionHelps() as docs/configuration.md has them: a table in Markdown.
std::string OptionTable();

// Writes --help: an option's name, default and variable in one line, and what it does below.
class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_option(const CLI::Option* option, bool is_positional) const override;
};

}  // namespace evaserve
