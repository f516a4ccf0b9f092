#!/usr/bin/env bash
# Checks how the code looks: formatting, the include rule, shell scripts. tools/check.sh --fix formats.
set -euo pipefail
cd "$(dirname "$0")/.."

mapfile -t sources < <(git ls-files '*.h' '*.cc' '*.cu' '*.cuh')
if [ "${1:-}" = --fix ]; then
  clang-format-14 -i "${sources[@]}"
else
  clang-format-14 --dry-run --Werror "${sources[@]}"
fi
python3 tools/check_includes.py
for script in $(git ls-files '*.sh' .ci/run); do bash -n "$script"; done
