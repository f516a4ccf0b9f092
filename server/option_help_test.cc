#include "server/option_help.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "server/config.h"

namespace evaserve {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// What the page says between two lines that begin with `begin` and `end`.
std::string PageBetween(const std::string& begin, const std::string& end) {
  std::ifstream page(EVASERVE_DOCS_DIR "/configuration.md");
  std::string between;
  std::string line;
  while (std::getline(page, line) && !line.starts_with(begin)) {
  }
  while (std::getline(page, line) && !line.starts_with(end)) between += line + "\n";
  return between;
}

std::string Help() {
  const char* const arguments[] = {"evaserve", "--help"};
  return ParseConfig(2, arguments).message;
}

TEST(OptionTableTest, IsInTheDocumentation) {
  EXPECT_EQ(PageBetween("<!-- options: ", "<!-- end of options"), OptionTable())
      << "run scripts/write-option-table.sh";
}

TEST(OptionTableTest, ARowTellsNamesDefaultAndWhatIsAllowed) {
  const std::string table = OptionTable();

  EXPECT_THAT(table, HasSubstr("\n| `--max-waiting` | `EVASERVE_MAX_WAITING` | `1024` | Sequences "
                               "that wait for a place, 1 .. 1048576. "));
  EXPECT_THAT(table, HasSubstr("\n| `--model-control-mode` | `EVASERVE_MODEL_CONTROL_MODE` | "
                               "`none` | "));
  EXPECT_THAT(table, HasSubstr("\n| `--tls-cert` | `EVASERVE_TLS_CERT` | none | "));
  EXPECT_THAT(table, HasSubstr("\n| `--auth-without-tls` | `EVASERVE_AUTH_WITHOUT_TLS` | `false` "
                               "| "));
  EXPECT_THAT(table, HasSubstr("\n| `--help` | | | Lists the options |\n"));
  EXPECT_THAT(table, Not(HasSubstr("{limits}")));
}

TEST(OptionHelpTest, NoDescriptionBreaksTheTable) {
  for (const OptionHelp& help : OptionHelps()) {
    EXPECT_EQ(help.description.find_first_of("|\n"), std::string::npos) << help.flag;
    EXPECT_FALSE(help.description.empty()) << help.flag;
  }
}

TEST(HelpTest, FitsATerminal) {
  std::istringstream help(Help());
  for (std::string line; std::getline(help, line);) EXPECT_LE(line.size(), 80u) << line;
}

TEST(HelpTest, TellsEachOptionsVariableDefaultAndUse) {
  const std::string help = Help();

  for (const OptionHelp& option : OptionHelps()) EXPECT_THAT(help, HasSubstr("\n  " + option.flag));
  EXPECT_THAT(help, HasSubstr("\n  --max-waiting (EVASERVE_MAX_WAITING; default 1024)\n      "
                              "Sequences that wait for a place, 1 .. 1048576. More are refused with"
                              "\n      RESOURCE_EXHAUSTED\n"));
  EXPECT_THAT(help, HasSubstr("\n  --tls-cert (EVASERVE_TLS_CERT)\n      PEM file: "));
}

}  // namespace
}  // namespace evaserve
