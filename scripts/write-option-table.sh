#!/usr/bin/env bash
# Writes the table of options in docs/configuration.md again, from what server/config_options.cc says.
#
#   scripts/write-option-table.sh [BUILD_DIRECTORY]     (build/release)
set -euo pipefail
cd "$(dirname "$0")/.."

build=${1:-build/release}
page=docs/configuration.md
table=$(mktemp)
trap 'rm -f "$table"' EXIT

cmake --build "$build" --target print_option_table
"$build/server/print_option_table" > "$table"
sed -i -e '/^<!-- options: /,/^<!-- end of options -->/{//!d}' -e "/^<!-- options: /r $table" "$page"
