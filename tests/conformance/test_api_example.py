"""The C++ program in docs/api.md."""

import subprocess

import pytest


@pytest.fixture
def example(pytestconfig):
    def run(target):
        command = [pytestconfig.getoption("api_example"), target]
        return subprocess.run(command, capture_output=True, timeout=60)

    return run


def test_it_generates(example, server):
    run = example(server.target)
    assert run.returncode == 0, run.stderr
    assert run.stdout == example(server.target).stdout != b""


def test_it_tells_an_error(example):
    run = example("127.0.0.1:1")
    assert run.returncode == 1
    assert run.stderr.startswith(b"UNAVAILABLE: ")
