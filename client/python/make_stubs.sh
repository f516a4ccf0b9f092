#!/usr/bin/env bash
# Makes the Python stubs of evaserve.v1 from proto/.   client/python/make_stubs.sh [FOLDER]
# Without FOLDER into client/python/generated. Needs grpcio-tools (requirements.txt).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/generated}
mkdir -p "$out"
"${PYTHON:-python3}" -m grpc_tools.protoc --proto_path="$here/../../proto" \
  --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" evaserve/v1/inference.proto
