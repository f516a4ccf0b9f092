#!/usr/bin/env bash
# Makes the wheel of evaserve-ops from a build of the project (target evaserve_torch_ops).
#
#   kernels/python/make_wheel.sh BUILD OUT [PYTHON]
#
# Leaves OUT/evaserve_ops-*.whl, and nothing in the sources. PYTHON has pip and setuptools.
set -euo pipefail
build=${1:?the folder of a build} out=${2:?where the wheel goes} python=${3:-python3}
sources=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake --install "$build" --component evaserve_ops --prefix "$work" > "$work/log" || {
  cat "$work/log" >&2
  exit 1
}
mkdir -p "$out" "$work/sources"
cp -r "$sources"/{README.md,pyproject.toml,setup.py,evaserve_ops} "$work/sources"
rm -f "$out"/evaserve_ops-*.whl
EVASERVE_TORCH_OPS=$work/lib/libevaserve_torch_ops.so "$python" -m pip wheel --quiet --no-deps \
  --no-build-isolation --no-index --disable-pip-version-check --wheel-dir "$out" "$work/sources"
ls "$out"/evaserve_ops-*.whl
