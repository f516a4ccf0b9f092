#!/usr/bin/env bash
# Installs the Python servers that bench/overhead/run.py compares with, each into an environment of
# its own, .deps/overhead/NAME, since they do not go together. Does nothing the second time.
#
#   bench/overhead/peers/setup.sh
set -euo pipefail
cd "$(dirname "$0")/../../.."

for peer in mlserver kserve; do
  folder=.deps/overhead/$peer
  requirements=bench/overhead/peers/requirements-$peer.txt
  cmp --quiet "$requirements" "$folder/requirements.stamp" && continue
  rm -rf "$folder"
  python3 -m venv "$folder"
  "$folder/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements"
  cp "$requirements" "$folder/requirements.stamp"
done
