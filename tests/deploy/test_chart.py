"""The Helm chart, rendered without Helm, and the manifests that deploy/kubernetes has of it."""

import copy
import json
import re
import subprocess

import jsonschema
import pytest
import yaml
from conftest import DEMO_MODEL, DEPLOY, HERE, ROOT
from manifests import Manifest, check_built_in, check_custom, is_built_in, of_kind, read_crds

CHART = DEPLOY / "helm" / "evaserve"
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
KUBERNETES = DEPLOY / "kubernetes"
VALUES = {
    "defaults": None,
    "cpu": KUBERNETES / "values.yaml",
    "gpu": KUBERNETES / "values-gpu.yaml",
    "everything": HERE / "values-everything.yaml",
    "repository": HERE / "values-repository.yaml",
}


def merged(base: dict, over: dict) -> dict:
    result = copy.deepcopy(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


@pytest.fixture
def render(pytestconfig):
    """Renders the chart with one of VALUES; returns the manifests."""
    renderer = pytestconfig.getoption("render_chart")
    if not renderer:
        pytest.skip("the chart's renderer is not built: no Go or no Sprig")

    def run(name):
        overrides = ["-values", VALUES[name]] if VALUES[name] else []
        command = [renderer, "-namespace", "evaserve", *overrides, CHART]
        text = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        return list(yaml.safe_load_all(text))

    return run


@pytest.fixture(params=VALUES)
def manifests(render, request):
    return render(request.param)


def pod(manifests: list[Manifest]) -> dict:
    return of_kind(manifests, "Deployment")["spec"]["template"]["spec"]


def container(manifests: list[Manifest]) -> dict:
    (only,) = pod(manifests)["containers"]
    return only


@pytest.mark.parametrize("file, name", [("evaserve.yaml", "cpu"), ("evaserve-gpu.yaml", "gpu")])
def test_the_plain_manifests_are_up_to_date(render, file, name):
    """deploy/kubernetes/render.sh makes them again."""
    kept = list(yaml.safe_load_all((KUBERNETES / file).read_text()))
    assert kept == render(name)


def test_kubernetes_knows_every_field(manifests):
    for manifest in filter(is_built_in, manifests):
        check_built_in(manifest)


def test_the_operators_know_every_field(manifests, pytestconfig):
    folder = pytestconfig.getoption("crds")
    if not folder:
        pytest.skip("--crds tells no folder with CustomResourceDefinitions")
    schemas = read_crds(folder)
    for manifest in manifests:
        if not is_built_in(manifest):
            check_custom(manifest, schemas)


@pytest.mark.parametrize("name", VALUES)
def test_the_values_schema_takes_our_values(name):
    over = yaml.safe_load(VALUES[name].read_text()) if VALUES[name] else {}
    jsonschema.validate(merged(DEFAULTS, over), SCHEMA)


@pytest.mark.parametrize(
    "wrong",
    [
        {"models": []},
        {"models": [], "options": {"model-control-mode": "poll"}},
        {"models": [{"name": "a,b", "path": "/a"}]},
        {"models": [{"name": "a", "path": "relative"}]},
        {"replicas": 3},
        {"gpu": {"count": 2}},
        {"options": {"drain-timeout-s": 5}},
        {"options": {"maxRunning": 5}},
        {"image": {"digest": "latest"}},
        {"resources": {"requests": {"cpu": "two"}}},
        {"autoscaling": {"targetQueueWait": "200ms"}},
        {"persistence": {"enabled": True}, "modelVolume": {"emptyDir": {}}},
        {"probes": {"protocol": "tcp"}},
    ],
    ids=str,
)
def test_the_values_schema_refuses(wrong):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(merged(DEFAULTS, wrong), SCHEMA)


def test_the_schema_knows_every_value():
    def names(values, schema, path):
        for key, value in values.items():
            if "properties" not in schema:
                return
            assert key in schema["properties"], f"{path}{key}"
            if isinstance(value, dict):
                names(value, schema["properties"][key], f"{path}{key}.")

    names(DEFAULTS, SCHEMA, "")


def test_the_server_knows_its_arguments(manifests):
    page = (ROOT / "docs" / "configuration.md").read_text()
    options = set(re.findall(r"^\| `(--[a-z-]+)`", page, re.MULTILINE))
    variables = set(re.findall(r"`(EVASERVE_[A-Z_]+)`", page))
    used = {argument.split("=")[0] for argument in container(manifests)["args"]}
    assert used - options == set()
    assert {v["name"] for v in container(manifests)["env"]} - variables <= {"TZ"}


def test_the_server_starts_with_its_arguments(render, start_evaserve):
    """But for the ports, and where the model is."""
    arguments = [a for a in container(render("defaults"))["args"] if "address=" not in a]
    arguments[arguments.index("--model=demo=/models/demo")] = DEMO_MODEL
    server = start_evaserve(*arguments)
    assert server.log[-1].startswith("{"), "the log is not JSON"


def test_a_repository_needs_no_other_models(render):
    server = container(render("repository"))
    assert not [a for a in server["args"] if a.startswith("--model=")]
    assert "--model-repository=/models" in server["args"]
    assert "/models" in {mount["mountPath"] for mount in server["volumeMounts"]}


def test_services_announce_plain_http2_unless_there_is_tls(render):
    def announced(name):
        services = [m for m in render(name) if m["kind"] == "Service"]
        ports = [port for service in services for port in service["spec"]["ports"]]
        return [port.get("appProtocol") for port in ports if port["name"] == "grpc"]

    assert announced("defaults") == ["kubernetes.io/h2c"] * 2
    assert announced("repository") == [None] * 2


def test_numbers_are_written_in_full(render):
    arguments = container(render("everything"))["args"]
    assert "--state-memory-mb=16777216" in arguments
    assert "--threads=3" in arguments


def test_the_grace_period_covers_the_drain(manifests):
    arguments = container(manifests)["args"]
    drain = sum(int(a.split("=")[1]) for a in arguments if a.startswith("--drain-"))
    assert drain > 0
    wait = container(manifests)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod(manifests)["terminationGracePeriodSeconds"] >= wait + drain + 5


def test_the_pod_has_no_rights(manifests):
    assert pod(manifests)["securityContext"]["runAsNonRoot"] is True
    assert pod(manifests)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod(manifests)["automountServiceAccountToken"] is False
    assert container(manifests)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_selectors_find_the_pod_and_ports_exist(manifests):
    labels = of_kind(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    ports = {port["name"] for port in container(manifests)["ports"]}
    for manifest in manifests:
        spec = manifest.get("spec", {})
        if manifest["kind"] == "Service":
            assert spec["selector"].items() <= labels
            assert {port["targetPort"] for port in spec["ports"]} <= ports
        elif manifest["kind"] in ("Deployment", "PodDisruptionBudget"):
            assert spec["selector"]["matchLabels"].items() <= labels
        elif manifest["kind"] == "NetworkPolicy":
            assert spec["podSelector"]["matchLabels"].items() <= labels
            assert {port["port"] for rule in spec["ingress"] for port in rule["ports"]} <= ports
        elif manifest["kind"] == "ServiceMonitor":
            (service,) = [
                m
                for m in manifests
                if m["kind"] == "Service"
                and spec["selector"]["matchLabels"].items() <= m["metadata"]["labels"].items()
                and "metrics" in {port["name"] for port in m["spec"]["ports"]}
            ]
            assert service["metadata"]["labels"][spec["jobLabel"]] == "evaserve"
        elif manifest["kind"] == "HorizontalPodAutoscaler":
            target = spec["scaleTargetRef"]
            assert of_kind(manifests, target["kind"], target["name"])


def test_probes(render):
    for probe in ("startupProbe", "readinessProbe"):
        assert container(render("defaults"))[probe]["grpc"] == {"port": 8001}
        assert container(render("everything"))[probe]["httpGet"]["path"] == "/readyz"
    assert container(render("defaults"))["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_the_autoscaler_has_the_replicas_to_itself(render):
    assert "replicas" not in of_kind(render("cpu"), "Deployment")["spec"]
    assert of_kind(render("gpu"), "Deployment")["spec"]["replicas"] == DEFAULTS["replicaCount"]


def test_the_autoscalers_metric_is_what_the_adapter_serves(render):
    (metric,) = of_kind(render("cpu"), "HorizontalPodAutoscaler")["spec"]["metrics"]
    adapter = yaml.safe_load((DEPLOY / "prometheus" / "adapter-values.yaml").read_text())
    (rule,) = adapter["rules"]["custom"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    records = (DEPLOY / "prometheus" / "recording.yml").read_text()
    assert f"record: {rule['seriesQuery'].split('{')[0]}\n" in records


def test_a_gpu_is_asked_for_and_insisted_on(render):
    arguments = container(render("gpu"))["args"]
    assert "--device=cuda:0" in arguments
    assert container(render("gpu"))["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod(render("gpu"))["tolerations"]
    assert not [a for a in container(render("cpu"))["args"] if a.startswith("--device")]


def test_the_rules_are_those_of_prometheus(render, packages, tmp_path):
    rules = of_kind(render("cpu"), "PrometheusRule")["spec"]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
    promtool = packages / "usr" / "bin" / "promtool"
    subprocess.run([promtool, "check", "rules", tmp_path / "rules.yml"], check=True)
    files = [DEPLOY / "prometheus" / name for name in ("recording.yml", "alerts.yml")]
    assert rules["groups"] == [
        group for file in files for group in yaml.safe_load(file.read_text())["groups"]
    ]


def test_the_dashboard_is_grafanas(render):
    config = of_kind(render("everything"), "ConfigMap")
    assert json.loads(config["data"]["evaserve.json"]) == json.loads(
        (DEPLOY / "grafana" / "evaserve.json").read_text()
    )
