"""What is done to a server: calls from C++ and from Python, idle connections, scrapes."""

import contextlib
import http.client
import json
import pathlib
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

from report import Sample
from servers import ROOT, Server

PYTHON = ROOT / ".venv/bin/python"  # with tritonclient
SECONDS_BESIDE_LOAD = 60  # until a load that does not end is an error


class LoadFailed(Exception):
    pass


@dataclass
class Load:
    """A program that calls one server for `seconds` and prints a line of JSON."""

    command: list
    seconds: float

    def on(self, server: Server, concurrency: int) -> list[str]:
        options = ["--concurrency", concurrency, "--seconds", self.seconds]
        return [str(part) for part in [*self.command, server.target, *options]]

    def sample(self, server: Server, concurrency: int) -> Sample:
        before = server.cpu_seconds()
        done = subprocess.run(
            self.on(server, concurrency),
            capture_output=True,
            text=True,
            timeout=self.seconds + SECONDS_BESIDE_LOAD,
        )
        if done.returncode != 0:
            raise LoadFailed(f"{server.name}: {(done.stderr or done.stdout).strip()}")
        line = json.loads(done.stdout)
        cpu_us = (server.cpu_seconds() - before) * 1e6 / line["requests"]
        return Sample(line["requests_per_s"], line["p50_us"], line["p99_us"], cpu_us)


def from_cpp(build: pathlib.Path, elements: int, seconds: float) -> Load:
    """On one connection: with two the echo answers no more."""
    return Load([build / "bench/overhead/overhead_load", "--elements", elements], seconds)


def from_tritonclient(elements: int, seconds: float) -> Load | None:
    """None where tritonclient is not installed."""
    script = ROOT / "bench/overhead/triton_load.py"
    return Load([PYTHON, script, "--elements", elements], seconds) if PYTHON.exists() else None


def idle_connections_bytes(build: pathlib.Path, server: Server, count: int) -> int:
    """What the server's memory grows by, from `count` connections that called once each."""
    before = server.resident_bytes()
    command = [build / "bench/overhead/idle_connections", server.target, "--count", str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        if program.stdout.readline() != f"open {count}\n".encode():
            raise LoadFailed(f"{server.name}: could not keep {count} connections open")
        return server.resident_bytes() - before


@contextlib.contextmanager
def model_loads(build: pathlib.Path, server: Server, every_s: float) -> Iterator[list[int]]:
    """The server loads its repository's other model and unloads it, again every `every_s` seconds
    or as soon as it can. How often it did is in the list at the end."""
    command = [build / "bench/overhead/model_loads", server.target, "demo", "--every", str(every_s)]
    count: list[int] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        yield count
        printed, _ = program.communicate()
    if program.returncode != 0:
        raise LoadFailed(f"{server.name}: could not load the demo's model")
    count.append(int(printed))


def fetch_ms(connection: http.client.HTTPConnection, path: str) -> float:
    begin = time.perf_counter()
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    took_ms = (time.perf_counter() - begin) * 1e3
    if response.status != 200 or not body:
        raise LoadFailed(f"GET {path} answers {response.status}")
    return took_ms


def fetches_under(load: Load, server: Server, paths: list[str]) -> Iterator[list[float]]:
    """How many ms fetching each of `paths` in turn takes, while 32 calls are in flight."""
    connection = http.client.HTTPConnection(server.metrics, timeout=10)
    command = load.on(server, concurrency=32)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        while program.poll() is None:
            yield [fetch_ms(connection, path) for path in paths]
            time.sleep(0.02)
        if program.returncode != 0:
            raise LoadFailed(f"{server.name}: {program.stdout.read().strip()}")
    connection.close()


def p50_and_p99(values: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return cuts[49], cuts[98]
