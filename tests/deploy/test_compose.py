"""deploy/compose, as far as it can be read without a Docker engine."""

import pathlib
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest
import yaml
from conftest import DEPLOY, ROOT

COMPOSE = DEPLOY / "compose"
FILE = COMPOSE / "docker-compose.yml"
SERVICES = yaml.safe_load(FILE.read_text())["services"]


def mounts(service: str) -> Iterator[tuple[pathlib.Path, pathlib.PurePath]]:
    """(source, target) of a service's files from the repository."""
    for volume in SERVICES[service].get("volumes", []):
        source, target, *_ = volume.split(":")
        if source.startswith("."):
            yield COMPOSE / source, pathlib.PurePath(target)


def test_compose_takes_the_file():
    if not shutil.which("docker-compose"):
        pytest.skip("no docker-compose")
    subprocess.run(["docker-compose", "--file", FILE, "config", "--quiet"], check=True)


@pytest.mark.parametrize("service", SERVICES)
def test_services_are_pinned_watched_and_without_rights(service):
    config = SERVICES[service]
    assert "build" in config or re.search(r":v?\d+\.\d+\.\d+$", config["image"])
    assert config["healthcheck"]["test"][0] == "CMD"
    assert config["read_only"] is True
    assert config["cap_drop"] == ["ALL"]
    assert config["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in config["ports"])


@pytest.mark.parametrize("service", SERVICES)
def test_mounted_files_exist(service):
    for source, _ in mounts(service):
        assert source.is_file()


def test_the_image_is_one_of_the_dockerfile():
    stages = re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert SERVICES["evaserve"]["build"]["target"] in stages
    assert stages[-1] == "cpu"


def test_docker_waits_longer_than_the_drain():
    drain = int(SERVICES["evaserve"]["environment"]["EVASERVE_DRAIN_TIMEOUT_S"])
    assert int(SERVICES["evaserve"]["stop_grace_period"].removesuffix("s")) >= drain + 5


def test_prometheus_takes_its_configuration(packages, tmp_path):
    """With the rules, laid out as in the container."""
    for source, target in mounts("prometheus"):
        copy = tmp_path / target.relative_to("/etc/prometheus")
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(source, copy)
    promtool = packages / "usr" / "bin" / "promtool"
    check = subprocess.run(
        [promtool, "check", "config", "prometheus.yml"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
        text=True,
    )
    assert "2 rule files found" in check.stdout


def test_prometheus_scrapes_the_server():
    (scrape,) = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": ["evaserve:8002"]}]
    assert "127.0.0.1:8002:8002" in SERVICES["evaserve"]["ports"]


def test_grafana_finds_the_dashboard_and_prometheus():
    (provider,) = yaml.safe_load((COMPOSE / "grafana" / "dashboards.yml").read_text())["providers"]
    dashboards = {
        str(target.parent) for source, target in mounts("grafana") if source.suffix == ".json"
    }
    assert dashboards == {provider["options"]["path"]}
    (source,) = yaml.safe_load((COMPOSE / "grafana" / "datasource.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
