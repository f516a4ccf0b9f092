"""The server and what is needed beside it; the tests that need them are skipped without."""

import pathlib

import pytest


def pytest_addoption(parser):
    for program in ("evaserve", "eva", "write-random-model"):
        parser.addoption(f"--{program}", type=pathlib.Path, help="path of the program")


@pytest.fixture(scope="session")
def program(pytestconfig):
    """The path of a program by its name."""

    def path_of(name: str) -> pathlib.Path:
        return pytestconfig.getoption(f"--{name}") or pytest.skip(f"--{name} is not given")

    return path_of
