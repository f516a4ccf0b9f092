#!/usr/bin/env bash
# Configures and builds.   scripts/build.sh [PRESET [TARGET...]]   (release, everything)
set -euo pipefail
cd "$(dirname "$0")/.."

preset=${1:-release}
shift $(($# > 0 ? 1 : 0))
cmake --preset "$preset" --log-level=WARNING ${CI:+-DEVASERVE_WARNINGS_AS_ERRORS=ON} > /dev/null
cmake --build "build/$preset" ${*:+--target "$@"}
