#!/usr/bin/env bash
# What the server costs: start to ready, idle memory, one stream against no server, many streams.
#
#   bench/serving/run.sh [MODEL_DIR [EVASERVE_LOAD ARGUMENT...]]     (demo/model)
#   BUILD=build/dev DTYPE=float32 THREADS=1 bench/serving/run.sh
set -euo pipefail
cd "$(dirname "$0")/../.."

model=${1:-demo/model}
shift $(($# > 0 ? 1 : 0))
bin=${BUILD:-build/release}/bin
dtype=${DTYPE:-auto}

log=$(mktemp)
start=$(date +%s%N)
"$bin/evaserve" --model "bench=$model" --address 127.0.0.1:0 --metrics-address 127.0.0.1:0 \
  --dtype "$dtype" --threads "${THREADS:-1}" 2> "$log" &
server=$!
trap 'kill $server; wait $server || true; rm -f "$log"' EXIT

until target=$(grep -oP 'grpc=\K\S+' "$log"); do
  kill -0 $server || { cat "$log" >&2; exit 1; }
done
"$bin/eva" health --wait 30 --server "$target" > /dev/null
printf 'start to ready %d ms, idle %d MiB resident\n' $((($(date +%s%N) - start) / 1000000)) \
  $(($(awk '/^VmRSS/ { print $2 }' /proc/$server/status) / 1024))
"$bin/eva" models --server "$target"
lscpu | grep -m 1 'Model name' | sed 's/  */ /'
"$bin/evaserve_load" --server "$target" --model-dir "$model" --dtype "$dtype" "$@"
