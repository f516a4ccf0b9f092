#!/usr/bin/env bash
# Renders the chart into this folder's manifests: with Helm if there is one, else with
# tests/deploy/render_chart.go, which needs Debian's packages golang-go,
# golang-github-masterminds-sprig-dev and golang-github-ghodss-yaml-dev.
set -euo pipefail
cd "$(dirname "$0")"

render() {
  if command -v helm > /dev/null; then
    helm template evaserve ../helm/evaserve --namespace evaserve --values "$1"
  else
    GO111MODULE=off GOPATH=/usr/share/gocode go run ../../tests/deploy/render_chart.go \
      -namespace evaserve -values "$1" ../helm/evaserve
  fi
}

for values in values*.yaml; do
  manifests=evaserve${values#values}
  {
    echo "# Rendered from ../helm/evaserve with $values by render.sh: change those, not this."
    echo "#   kubectl create namespace evaserve; kubectl apply -f $manifests"
    render "$values"
  } > "$manifests.new"
  mv "$manifests.new" "$manifests"
done
