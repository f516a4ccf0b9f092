#!/usr/bin/env bash
# Installs what is missing, builds, serves the demo model, and calls it with real text:
# a completion, the score of a document, two embeddings, the metrics. Stops by itself.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

scripts/setup.sh
scripts/build.sh release evaserve eva
bin=build/release/bin

log=$(mktemp)
"$bin/evaserve" --model demo=demo/model --address 127.0.0.1:0 --metrics-address 127.0.0.1:0 \
  2> "$log" &
server=$!
trap 'kill $server 2> /dev/null || true; rm -f "$log"' EXIT

port() { grep -o "$1=127.0.0.1:[0-9]*" "$log" | head -n 1 | cut -d: -f2; }
for _ in $(seq 100); do
  [ -n "$(port grpc)" ] && break
  kill -0 $server 2> /dev/null || { cat "$log"; exit 1; }
  sleep 0.1
done
export EVA_SERVER="127.0.0.1:$(port grpc)"
"$bin/eva" health --wait 30
say "The server is ready:"
grep -m 1 'ready' "$log"

say "A completion of demo/prompt.txt, streamed as it is made:"
cat demo/prompt.txt
"$bin/eva" generate --file demo/prompt.txt --max-tokens 400 --temperature 0.7 --seed 7 --stats

say "How well the model predicts demo/heldout.txt, which it never saw:"
"$bin/eva" score demo/heldout.txt
printf 'for comparison, xz -9e: %s bits per byte\n' \
  "$(awk -v z="$(xz -9e -c demo/heldout.txt | wc -c)" -v n="$(wc -c < demo/heldout.txt)" 'BEGIN { printf "%.3f", 8 * z / n }')"

say "Two passages as vectors, and how alike they are:"
"$bin/eva" embed demo/passage-1.txt demo/passage-2.txt

say "What Prometheus sees:"
curl -sS "http://127.0.0.1:$(port metrics)/metrics" |
  grep -E '^evaserve_(requests_total|input_bytes_total|output_bytes_total|time_to_first_byte_seconds_(sum|count)|state_pages)'

say "Stopping:"
kill -TERM $server
wait $server && echo "the server has finished its work and left with status 0"
trap 'rm -f "$log"' EXIT
