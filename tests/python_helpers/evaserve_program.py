"""Starts evaserve, and other programs that tests talk to, and reads what they tell about
themselves."""

import os
import pathlib
import re
import subprocess
import threading
import urllib.request
from collections.abc import Mapping
from typing import NamedTuple


class Program:
    """A running program. Its log is read to the end, so that it never waits for us."""

    def __init__(
        self,
        command: list[str | pathlib.Path],
        ready: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Returns when a line of the log matches `ready`, the match of which is self.match.
        `environment` goes beside that of this process."""
        environment = {**os.environ, **(environment or {})}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.log: list[str] = []
        for line in self.process.stderr:
            self.log.append(line)
            if match := re.search(ready, line):
                self.match = match
                break
        else:
            raise RuntimeError(f"{command[0]} did not start:\n" + "".join(self.log))
        self.reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr))
        self.reader.start()

    def wait(self) -> int:
        exit_code = self.process.wait(timeout=60)
        self.reader.join()
        return exit_code

    def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        return self.wait()

    def kill(self) -> None:
        """SIGKILL, also of one that has ended already."""
        self.process.kill()
        self.wait()


class Sample(NamedTuple):
    """A line of /metrics."""

    name: str
    labels: dict[str, str]
    value: float


def parse_metrics(text: str) -> list[Sample]:
    """Raises ValueError for a line that is none of Prometheus' text format."""
    samples = []
    for line in text.splitlines():
        if line.startswith("#") or not line:
            continue
        match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if match is None:
            raise ValueError(f"no sample: {line}")
        labels = dict(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
        samples.append(Sample(match[1], labels, float(match[3])))
    return samples


class Evaserve(Program):
    """evaserve on free ports of 127.0.0.1, at `target` (gRPC) and `metrics_target`."""

    def __init__(
        self,
        program: str | pathlib.Path,
        *args: str | pathlib.Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        addresses = ("--address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0")
        # Either format of the log.
        ready = r'\bgrpc"?[=:]"?([\d.:]+)"?[ ,]"?metrics"?[=:]"?([\d.:]+)'
        super().__init__([program, *addresses, *args], ready, environment)
        self.target, self.metrics_target = self.match.groups()

    def metrics(self) -> list[Sample]:
        with urllib.request.urlopen(f"http://{self.metrics_target}/metrics", timeout=10) as page:
            return parse_metrics(page.read().decode())

    def metric(self, name: str) -> float:
        """Its sum over all labels."""
        return sum(sample.value for sample in self.metrics() if sample.name == name)
