#!/usr/bin/env python3
"""What a server costs around a model that does nothing: evaserve's, bare gRPC's, and its peers'.

    scripts/setup.sh --test && scripts/build.sh release    # first
    bench/overhead/run.py [--quick]

Each round calls every server in turn, so that what else the machine does hits them alike; a ratio
is the median of the rounds' ratios. The model answers OUTPUT0 = INPUT0, FP32 [1, --elements], and
every answer is checked. The load runs on the same cores. Then come scrapes of /metrics under load,
and 1,000 connections without calls. evaserve+log writes its line for each request, as it does
unless told otherwise; no other server here writes one. Last, the p99 of calls while a second model
is loaded and unloaded once a second, and without end.

Ends with 1 if evaserve did not start, a call failed, or a target was missed.
"""

import argparse
import collections
import contextlib
import os
import pathlib
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

import loads
import report
import servers
from report import FROM_CPP, FROM_PYTHON, Samples, Series, Target
from servers import Server

LIMIT_SECONDS = 360  # for all of it
CONNECTIONS = 1000
LOADING = 3  # times as long as a load in a round: models are loaded now and then
SCRAPED = 8  # times as long as a load in a round, so that there is a p99
MIB = 1 << 20


def start_all(
    build: pathlib.Path, folder: pathlib.Path, stack: contextlib.ExitStack
) -> list[Server]:
    """Those that start; the others say why not."""
    starts = {
        "echo": lambda: servers.echo(build, folder),
        "evaserve": lambda: servers.evaserve(build, folder),
        "evaserve+log": lambda: servers.evaserve(build, folder, "evaserve+log", "info"),
        "mlserver": lambda: servers.peer("mlserver", folder),
        "kserve": lambda: servers.peer("kserve", folder),
    }
    started = []
    for name, start in starts.items():
        try:
            started.append(stack.enter_context(start()))
        except servers.CannotStart as error:
            print(f"{name}: {error}", file=sys.stderr)
    return started


def measure_calls(args: argparse.Namespace, running: list[Server]) -> Samples:
    samples: Samples = {}
    from_cpp = loads.from_cpp(args.build, args.elements, args.seconds)
    plans = [(FROM_CPP, from_cpp, concurrency, running) for concurrency in (1, 32)]
    if from_python := loads.from_tritonclient(args.elements, args.seconds):
        few = [server for server in running if server.name in (report.FLOOR, report.OURS)]
        plans.append((FROM_PYTHON, from_python, 1, few))
    else:
        print("tritonclient: not installed, run scripts/setup.sh --test", file=sys.stderr)
    for i in range(args.rounds + 1):
        for client, load, concurrency, called in plans:
            for server in called if i % 2 else reversed(called):
                sample = load.sample(server, concurrency)
                if i > 0:  # the first round warms up
                    series = Series(server.name, client, concurrency)
                    samples.setdefault(series, []).append(sample)
    return samples


def measure_scrapes(args: argparse.Namespace, server: Server | None) -> Iterator[Target | str]:
    """/healthz takes as long as HTTP and the busy machine alone do."""
    metrics = None, None
    if server:
        load = loads.from_cpp(args.build, args.elements, SCRAPED * args.seconds)
        fetched = zip(*loads.fetches_under(load, server, ["/metrics", "/healthz"]), strict=True)
        metrics, healthz = map(loads.p50_and_p99, fetched)
        yield "/healthz under load: p50 {:.2f} ms, p99 {:.2f} ms".format(*healthz)
    for name, took_ms in zip(("p50", "p99"), metrics, strict=True):
        yield Target(f"scrape of /metrics under load, {name}", took_ms, 5, False, " ms")


def connections_mib(args: argparse.Namespace, start: Callable, folder: pathlib.Path) -> float:
    """Of a server that has done nothing yet: memory that was used before would be used again."""
    with start(args.build, folder) as server:
        return loads.idle_connections_bytes(args.build, server, CONNECTIONS) / MIB


def measure_connections(
    args: argparse.Namespace, starts: bool, folder: pathlib.Path
) -> Iterator[Target | str]:
    floor = connections_mib(args, servers.echo, folder)
    yield f"{CONNECTIONS} idle connections to {report.FLOOR}: {floor:.1f} MiB"
    grown = connections_mib(args, servers.evaserve, folder) if starts else None
    yield Target(f"{CONNECTIONS} idle connections", grown, 50, False, " MiB")


def measure_loading(
    args: argparse.Namespace, starts: bool, folder: pathlib.Path
) -> Iterator[Target | str]:
    """Each round calls the first model for a while, and again beside loads of a second one: now
    and then, and, so that every call is beside one, without end."""
    without_end = None
    if starts:
        load = loads.from_cpp(args.build, args.elements, LOADING * args.seconds)
        alone_ms, ratios, times = [], {1: [], 0: []}, collections.Counter()
        with servers.evaserve(args.build, folder, with_repository=True) as server:
            for _ in range(args.rounds):
                alone_ms.append(load.sample(server, 8).p99_us / 1e3)
                for every_s, measured in ratios.items():
                    with loads.model_loads(args.build, server, every_s) as count:
                        measured.append(load.sample(server, 8).p99_us / 1e3 / alone_ms[-1])
                    times[every_s] += sum(count)
        each_second, without_end = (statistics.median(measured) for measured in ratios.values())
        yield f"p99, 8 in flight: {statistics.median(alone_ms):.2f} ms alone"
        yield f"p99 beside {times[1]} loads, one a second: {each_second:.2f}x"
        yield f"p99 beside {times[0]} loads, without end: {without_end:.2f}x"
    yield Target("p99 beside loads without end, of that alone", without_end, 1.2, False, "x")


def machine() -> str:
    cpu = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
    name = re.search(r"^Model name:\s*(.*)$", cpu, re.MULTILINE)
    return f"{name[1] if name else 'unknown CPU'}, {len(os.sched_getaffinity(0))} cores"


def measure(args: argparse.Namespace, folder: pathlib.Path) -> bool:
    """Prints everything; whether all that was measured is as we want it."""
    print(f"{machine()}; INPUT0 FP32 [1, {args.elements}]; {args.rounds} x {args.seconds} s\n")
    with contextlib.ExitStack() as stack:
        running = start_all(args.build, folder, stack)
        samples = measure_calls(args, running)
        print("\n".join(report.calls(samples)), flush=True)
        wanted = report.targets(samples)
        ours = next((server for server in running if server.name == report.OURS), None)
        extra = list(measure_scrapes(args, ours))
    extra += measure_connections(args, ours is not None, folder)
    extra += measure_loading(args, ours is not None, folder)
    print("\n".join(line for line in extra if isinstance(line, str)), end="\n\n")
    wanted += [target for target in extra if isinstance(target, Target)]
    print("\n".join(report.verdicts(wanted)))
    missed = [target for target in wanted if target.reached is not None and not target.is_met]
    return ours is not None and not missed


def end_all(signum: int, frame: object) -> None:
    sys.exit(f"ended by {signal.Signals(signum).name}")  # which ends the servers on its way


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=servers.ROOT / "build/release")
    parser.add_argument("--elements", type=int, default=256, help="of INPUT0")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each load in a round")
    parser.add_argument("--quick", action="store_true", help="to see that it runs")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds = 2, 0.3
    args.build = args.build.resolve()
    if not (args.build / "bench/overhead/overhead_load").exists():
        sys.exit(f"nothing is built in {args.build}, run scripts/build.sh release")

    for signum in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(signum, end_all)
    signal.alarm(LIMIT_SECONDS)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for 1,000 connections
    with tempfile.TemporaryDirectory() as folder:
        try:
            return 0 if measure(args, pathlib.Path(folder)) else 1
        except (loads.LoadFailed, servers.CannotStart) as error:
            sys.exit(str(error))


if __name__ == "__main__":
    sys.exit(main())
