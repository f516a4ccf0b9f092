#!/usr/bin/env bash
# Runs clang-tidy with .clang-tidy's checks over all sources but tests and generated code.
# Usage: tools/tidy.sh BUILD_DIR (where compile_commands.json and the generated headers are).
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:?usage: tools/tidy.sh BUILD_DIR}

# Options of g++ that clang does not know are not worth a word.
git ls-files '*.cc' ':!*_test.cc' |
  xargs -n 1 -P "$(nproc)" clang-tidy-14 -p "$build" --quiet --extra-arg=-Wno-unknown-warning-option
