"""The servers that are measured, each on 127.0.0.1 at a free port, ended with this program."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parents[2]
PEERS = ROOT / "bench/overhead/peers"
START_SECONDS = 30
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
CONFIG = {"model_type": "identity"}
SERVING: dict = {}  # as it comes


class CannotStart(Exception):
    pass


@dataclass
class Server:
    name: str
    target: str  # HOST:PORT of gRPC
    pid: int
    metrics: str = ""  # HOST:PORT, evaserve's

    def cpu_seconds(self) -> float:
        """Of all threads so far. None of the servers has processes besides its own."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        user, system = fields[11:13]
        return (int(user) + int(system)) / TICKS_PER_SECOND

    def resident_bytes(self) -> int:
        return int(pathlib.Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE_BYTES


@contextlib.contextmanager
def running(command: list, log: pathlib.Path, folder: pathlib.Path) -> Iterator[subprocess.Popen]:
    """Runs a server in `folder`; the kernel ends it if this program is killed."""
    with log.open("w") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(is_up: Callable[[], str], process: subprocess.Popen, log: pathlib.Path) -> str:
    """What `is_up` returns once it is not empty."""
    end = time.monotonic() + START_SECONDS
    while not (found := is_up()):
        if process.poll() is not None or time.monotonic() > end:
            state = "not up" if process.poll() is None else f"ended with {process.returncode}"
            raise CannotStart(f"{state}: {' '.join(log.read_text().splitlines()[-1:])}")
        time.sleep(0.02)
    return found


@contextlib.contextmanager
def telling_server(name: str, command: list, folder: pathlib.Path) -> Iterator[Server]:
    """A server that prints where it listens."""
    log = folder / f"{name}.log"

    def told() -> str:
        found = re.search(r"^listening (\S+)\n", log.read_text(), re.MULTILINE)
        return found[1] if found else ""

    with running(command, log, folder) as process:
        yield Server(name, wait_until(told, process, log), process.pid)


def echo(build: pathlib.Path, folder: pathlib.Path) -> contextlib.AbstractContextManager[Server]:
    return telling_server("echo", [build / "bench/overhead/echo_server"], folder)


def peer(name: str, folder: pathlib.Path) -> contextlib.AbstractContextManager[Server]:
    python = ROOT / f".deps/{name}/bin/python"
    if not python.exists():
        raise CannotStart("not installed, run scripts/setup.sh --test")
    return telling_server(name, [python, "-B", PEERS / f"{name}_identity.py"], folder)


def write_model(folder: pathlib.Path) -> pathlib.Path:
    model = folder / "identity"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text(json.dumps(CONFIG))
    (model / "serving.json").write_text(json.dumps(SERVING))
    return model


def free_address() -> str:
    """For evaserve, whose log does not tell at level `warning` what it got for port 0."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"127.0.0.1:{listening.getsockname()[1]}"


def write_repository(folder: pathlib.Path) -> pathlib.Path:
    """Of the identity model and the demo's."""
    repository = folder / "repository"
    repository.mkdir()
    write_model(repository)
    (repository / "demo").symlink_to(ROOT / "demo/model")
    return repository


@contextlib.contextmanager
def evaserve_with(
    build: pathlib.Path, folder: pathlib.Path, name: str, options: list
) -> Iterator[Server]:
    """`options` say at least which models there are."""
    log = folder / f"{name}.log"
    target, metrics = free_address(), free_address()

    def is_ready() -> str:
        try:
            with urllib.request.urlopen(f"http://{metrics}/readyz", timeout=5):
                return target
        except (urllib.error.URLError, OSError):
            return ""

    command = [build / "bin/evaserve", *options, "--address", target, "--metrics-address", metrics]
    if not any(str(option).startswith("--log-level") for option in options):
        command += ["--log-level", "warning"]  # no line for each request, as the others write none
    with running(command, log, folder) as process:
        yield Server(name, wait_until(is_ready, process, log), process.pid, metrics)


def evaserve(
    build: pathlib.Path,
    folder: pathlib.Path,
    name: str = "evaserve",
    log_level: str = "warning",
    with_repository: bool = False,
) -> contextlib.AbstractContextManager[Server]:
    """With the identity model, and from a repository also the demo's, which is not loaded yet."""
    if with_repository:
        models = ["--model-repository", write_repository(folder)]
        models += ["--model-control-mode", "explicit", "--load-model", "identity"]
    else:
        models = ["--model", f"identity={write_model(folder)}"]
    return evaserve_with(build, folder, name, [*models, "--log-level", log_level])
