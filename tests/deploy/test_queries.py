"""Every query of the dashboard and of the rules, asked of a real Prometheus that scrapes a real
server with the configuration of deploy/compose."""

import json
import math
import pathlib
import re
import threading
import time

import numpy
import pytest
import tritonclient.grpc as triton
import yaml
from conftest import DEPLOY, ROOT
from programs import Prometheus

# Labels that only Kubernetes and alerts give.
LABELS_FROM_ELSEWHERE = {"namespace", "pod", "alertname", "alertstate"}
# Empty as long as all is well: restarts and alerts.
EMPTY_WHEN_ALL_IS_WELL = re.compile(r"^(resets\(.*\) > 0|ALERTS\{.*\})$")

DASHBOARD = json.loads((DEPLOY / "grafana" / "evaserve.json").read_text())
DEADLINE_S = 45


def filled_in(query: str) -> str:
    """What Grafana makes of a query, with everything selected."""
    query = query.replace("$__rate_interval", "30s")
    query = re.sub(r"\$(job|instance|model)\b", ".*", query)
    assert "$" not in query, f"a variable that the dashboard does not have: {query}"
    # Grafana asks for a label's values in its own way.
    if values := re.fullmatch(r"label_values\((.*), (\w+)\)", query):
        return f"count by ({values[2]}) ({values[1]})"
    return query


def dashboard_queries() -> list[str]:
    queries = [
        target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])
    ]
    queries += [note["expr"] for note in DASHBOARD["annotations"]["list"]]
    queries += [
        variable["query"]["query"]
        for variable in DASHBOARD["templating"]["list"]
        if variable["type"] == "query"
    ]
    return queries


def rules(name: str) -> list[dict]:
    groups = yaml.safe_load((DEPLOY / "prometheus" / name).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def write_config(path: pathlib.Path, metrics_target: str) -> None:
    """deploy/compose/prometheus.yml, quicker and with another target."""
    config = yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [
        str(DEPLOY / "prometheus" / pathlib.PurePath(file).name) for file in config["rule_files"]
    ]
    (scrape,) = config["scrape_configs"]
    scrape["static_configs"] = [{"targets": [metrics_target]}]
    path.write_text(yaml.safe_dump(config))


def call_until(stopped: threading.Event, target: str) -> None:
    """A completion and a score every now and then."""
    text = triton.InferInput("text_input", [1], "BYTES")
    text.set_data_from_numpy(numpy.array([b"It is a truth"], dtype=object))
    with triton.InferenceServerClient(target) as client:
        while not stopped.wait(0.3):
            client.infer("demo", [text], parameters={"max_tokens": 8})
            client.infer("demo", [text], outputs=[triton.InferRequestedOutput("bits_per_byte")])


@pytest.fixture
def prometheus(start_evaserve, packages, tmp_path):
    server = start_evaserve()
    write_config(tmp_path / "prometheus.yml", server.metrics_target)
    stopped = threading.Event()
    calls = threading.Thread(target=call_until, args=(stopped, server.target))
    calls.start()
    monitor = Prometheus(
        packages / "usr" / "bin" / "prometheus", tmp_path / "prometheus.yml", tmp_path / "data"
    )
    yield monitor
    stopped.set()
    calls.join()
    monitor.kill()


def labels_in(text: str) -> set[str]:
    """The labels that queries and legends name."""
    lists = re.findall(r"\b(?:by|on|group_left) \(([\w, ]+)\)", text)
    return {
        *re.findall(r"(\w+)(?:=~|!~|!=|=)\"", text),
        *re.findall(r"\{\{(\w+)\}\}", text),
        *(label.strip() for labels in lists for label in labels.split(",")),
    }


def has_number(values: list[float]) -> bool:
    return any(not math.isnan(value) for value in values)


def test_every_query_has_an_answer(prometheus):
    queries = [filled_in(query) for query in dashboard_queries()]
    queries += [rule["record"] for rule in rules("recording.yml")]
    waiting = [query for query in queries if not EMPTY_WHEN_ALL_IS_WELL.match(query)]
    assert len(waiting) > 50

    end = time.monotonic() + DEADLINE_S
    while waiting and time.monotonic() < end:
        time.sleep(0.5)  # a scrape is a second away
        waiting = [query for query in waiting if not has_number(prometheus.values(query))]
    assert waiting == []

    quiet = [query for query in queries if EMPTY_WHEN_ALL_IS_WELL.match(query)]
    assert [query for query in quiet if prometheus.values(query)] == []

    legends = re.findall(r"\{\{\w+\}\}", json.dumps(DASHBOARD))
    expressions = [rule["expr"] for name in ("recording.yml", "alerts.yml") for rule in rules(name)]
    used_labels = labels_in("\n".join(queries + legends + expressions))
    assert used_labels - set(prometheus.get("labels")) - LABELS_FROM_ELSEWHERE == set()

    evaluated = [r for group in prometheus.get("rules")["groups"] for r in group["rules"]]
    assert {rule["health"] for rule in evaluated} == {"ok"}
    assert len(evaluated) == len(rules("recording.yml")) + len(rules("alerts.yml"))


def metrics_of_the_docs() -> set[str]:
    return set(re.findall(r"^\| `(\w+)`", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE))


def test_the_metrics_exist():
    """A query for a metric without data so far, such as an alert's, would not show it missing."""
    queries = dashboard_queries() + [
        rule["expr"] for name in ("recording.yml", "alerts.yml") for rule in rules(name)
    ]
    recorded = {rule["record"] for rule in rules("recording.yml")}
    known = metrics_of_the_docs() | recorded
    used = set(re.findall(r"[\w:]*\b(?:evaserve|process)_[\w:]+", " ".join(queries)))
    used = {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}
    assert used - known == set()
    assert len(used) > 20


def anchors(markdown: str) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("rule", rules("alerts.yml"), ids=lambda rule: rule["alert"])
def test_the_runbook_knows_the_alert(rule):
    page, anchor = rule["annotations"]["runbook_url"].split("#")
    assert anchor == rule["alert"].lower()
    assert anchor in anchors((ROOT / page).read_text())


def test_panels_have_titles_descriptions_and_places():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in DASHBOARD["panels"]:
        assert panel["title"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert panel["type"] == "row" or panel["description"]
