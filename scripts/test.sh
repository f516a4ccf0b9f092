#!/usr/bin/env bash
# Installs what is missing, builds, and runs the tests.
#
#   scripts/test.sh [CTEST ARGUMENT...]     for example: scripts/test.sh -L golden
#   PRESET=asan scripts/test.sh             another preset of CMakePresets.json
set -euo pipefail
cd "$(dirname "$0")/.."

preset=${PRESET:-release}
scripts/setup.sh --test
scripts/build.sh "$preset"
ctest --test-dir "build/$preset" --output-on-failure --parallel "$(nproc)" "$@"
