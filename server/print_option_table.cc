// Prints the table of options for docs/configuration.md: scripts/write-option-table.sh.
#include <cstdio>

#include "server/option_help.h"

int main() {
  std::fputs(evaserve::OptionTable().c_str(), stdout);
  return 0;
}
