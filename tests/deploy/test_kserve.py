"""deploy/kserve: against KServe's own schemas where --crds tells a folder with them."""

import pathlib

import kubernetes_validate
import pytest
import yaml
from conftest import DEPLOY
from manifests import check_built_in, check_custom, of_kind, read_crds

MANIFESTS = list(yaml.safe_load_all((DEPLOY / "kserve" / "evaserve.yaml").read_text()))
RUNTIME = of_kind(MANIFESTS, "ServingRuntime")["spec"]
PREDICTOR = of_kind(MANIFESTS, "InferenceService")["spec"]["predictor"]
(CONTAINER,) = RUNTIME["containers"]


def test_kserve_knows_every_field(pytestconfig):
    folder = pytestconfig.getoption("crds")
    if not folder:
        pytest.skip("--crds tells no folder with CustomResourceDefinitions")
    for manifest in MANIFESTS:
        check_custom(manifest, read_crds(folder))


def pod() -> dict:
    """What KServe makes of the container, as far as Kubernetes' own schema can judge it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "predictor"},
        "spec": {
            "terminationGracePeriodSeconds": PREDICTOR["terminationGracePeriodSeconds"],
            "containers": [CONTAINER],
        },
    }


def test_kubernetes_knows_every_field_of_the_container():
    check_built_in(pod())


def test_a_wrong_field_would_be_noticed():
    wrong = pod()
    wrong["spec"]["containers"] = [{**CONTAINER, "probe": {}}]
    with pytest.raises(kubernetes_validate.ValidationError):
        check_built_in(wrong)


def test_the_service_finds_its_runtime():
    model = PREDICTOR["model"]
    formats = [(f["name"], f["version"]) for f in RUNTIME["supportedModelFormats"]]
    assert model["runtime"] == of_kind(MANIFESTS, "ServingRuntime")["metadata"]["name"]
    assert (model["modelFormat"]["name"], model["modelFormat"]["version"]) in formats
    assert model["protocolVersion"] in RUNTIME["protocolVersions"]


def test_names_that_kserve_insists_on():
    assert CONTAINER["name"] == "kserve-container"
    assert CONTAINER["ports"][0]["name"] == "grpc"
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert RUNTIME["annotations"]["prometheus.kserve.io/port"] == str(ports["metrics"])
    mount = pathlib.PurePath("/mnt/models")
    assert f"--model={{{{.Name}}}}={mount}" in CONTAINER["args"]


def test_the_grace_period_covers_the_drain():
    drain = sum(int(a.split("=")[1]) for a in CONTAINER["args"] if a.startswith("--drain-"))
    wait = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert PREDICTOR["terminationGracePeriodSeconds"] >= wait + drain + 5
