#!/usr/bin/env bash
# Runs clang-tidy with .clang-tidy's checks over the sources that a build compiles, but tests and
# generated code. Usage: tools/tidy.sh BUILD_DIR (where compile_commands.json is).
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:?usage: tools/tidy.sh BUILD_DIR}

# One file includes a header that comes with clang's sanitizers only. Options of g++ that clang does
# not know are not worth a word.
sources() {
  git ls-files '*.cc' ':!*_test.cc' ':!tests/fakes/tsan_absl_mutex.cc' | while read -r file; do
    ! grep -q "\"file\": \"$PWD/$file\"" "$build/compile_commands.json" || echo "$file"
  done
}
sources | xargs -n 1 -P "$(nproc)" clang-tidy-14 -p "$build" --quiet \
  --extra-arg=-Wno-unknown-warning-option
