"""The programs under test, and where the files of deploy/ are."""

import pathlib

import pytest
from programs import Evaserve

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DEPLOY = ROOT / "deploy"
DEMO_MODEL = f"--model=demo={ROOT / 'demo' / 'model'}"


def pytest_addoption(parser):
    parser.addoption("--evaserve", required=True, help="path of the program")
    parser.addoption(
        "--packages", required=True, help="where the packages prometheus and nginx are unpacked"
    )
    parser.addoption("--render-chart", help="path of the program, if it could be built")
    parser.addoption(
        "--crds", type=pathlib.Path, help="folder with CustomResourceDefinitions of operators"
    )


@pytest.fixture(scope="session")
def packages(pytestconfig):
    return pathlib.Path(pytestconfig.getoption("packages")).resolve()


@pytest.fixture
def start_evaserve(pytestconfig):
    """Starts a server on one thread, with the demo model if no --model is given; returns it. All
    are killed at the end."""
    servers = []

    def start(*args):
        if not any(arg.startswith("--model=") for arg in args):
            args = (DEMO_MODEL, *args)
        servers.append(Evaserve(pytestconfig.getoption("evaserve"), *args, "--threads=1"))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()
