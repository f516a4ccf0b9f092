#!/usr/bin/env python3
"""Mixed traffic of several clients against the real server, for long; then nothing may be left.

    soak.py --evaserve PATH --write-random-model PATH [--seconds 600] [--seed N]

Every answer is compared with that of a server without load, every count with what the clients saw
(ledger.py tells the rule). The traffic comes in rounds. After each the server is idle: no request,
sequence, page or connection is left, and after a warm-up its memory stays as it is.

The seed makes the same requests again, not the same order of events. Ends with 1 and a list if
something was wrong.
"""

import argparse
import asyncio
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from types import ModuleType

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "python_helpers"))
sys.path.append(str(ROOT / "tools" / "convert"))

import background
import generate_traffic
import grpc
import infer_traffic
import other_traffic
import prompts_traffic
import safetensors_file
import stream_traffic
import tensor_traffic
from answers import Answers, Oracle, learn
from caller import Caller, Wrong
from evaserve_program import Evaserve
from evaserve_stubs import load_stubs, make_stubs
from ledger import Ledger

DEMO_MODEL, DIGITS = ROOT / "demo" / "model", ROOT / "demo" / "digits"
NUM_IMAGES = 24
CALLERS = 8
HUNG_S = 60.0  # nothing takes nearly as long
QUIET_S = 20.0  # until what was cancelled is gone and connections are closed
SHORTEST_ROUND_S, MOST_ROUNDS = 4.0, 12
MEMORY_MOMENTS, MEMORY_SAMPLES = 3, 9
MEMORY_GROWTH = 0.02
IDLE = ("requests_in_flight", "running_sequences", "waiting_requests", "waiting_tokens")
IDLE += ("state_pages_used", "state_pages_promised")

# glibc gives back what is freed, instead of keeping more and more of it in case it is of use again:
# else models that come and go would hide a leak.
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(64 << 10),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 10),
}

Kind = Callable[[Caller], Awaitable[None]]
# How often each kind of traffic comes, relative to the others.
KINDS: dict[Kind, float] = {
    generate_traffic.generate: 6,
    generate_traffic.generate_and_cancel: 4,
    generate_traffic.generate_with_deadline: 4,
    generate_traffic.generate_and_read_slowly: 0.3,
    generate_traffic.generate_on_what_comes_and_goes: 2,
    infer_traffic.score: 3,
    infer_traffic.embed: 3,
    infer_traffic.infer_scores: 2,
    infer_traffic.infer_generations: 3,
    infer_traffic.infer_with_timeout: 2,
    stream_traffic.stream: 3,
    stream_traffic.stream_and_cancel: 3,
    prompts_traffic.prompts: 3,
    prompts_traffic.prompts_and_cancel: 3,
    tensor_traffic.classify: 3,
    tensor_traffic.classify_and_cancel: 2,
    tensor_traffic.classify_no_image: 1,
    tensor_traffic.infer_images: 2,
    tensor_traffic.infer_identity: 3,
    other_traffic.bad_generate: 2,
    other_traffic.bad_infer: 2,
    other_traffic.no_request_at_all: 1,
    other_traffic.question: 3,
    other_traffic.not_supported: 0.5,
}


def write_repository(folder: pathlib.Path, write_random_model: str) -> None:
    """Two models of different sizes, "coming", the smaller one again, and two of tensors."""
    for name in ("tiny", "coming"):
        (folder / name).mkdir(parents=True)
        subprocess.run([write_random_model, folder / name], check=True)
    shutil.copytree(DEMO_MODEL, folder / "demo")
    shutil.copytree(DIGITS, folder / "digits", ignore=shutil.ignore_patterns("heldout.*"))
    (folder / "identity").mkdir()
    (folder / "identity" / "config.json").write_text('{"model_type": "identity"}')


def held_out_images() -> list[bytes]:
    tensors = safetensors_file.read(DIGITS / "heldout.safetensors")
    offsets, png = tensors["png_offset"], tensors["png"].tobytes()
    return [png[offsets[i] : offsets[i + 1]] for i in range(NUM_IMAGES)]


def start_server(program: str, repository: pathlib.Path) -> Evaserve:
    return Evaserve(
        *(program, f"--model-repository={repository}", "--model-control-mode=explicit"),
        *("--load-model=*", "--dtype=float32", "--threads=2"),
        *("--max-running=16", "--max-waiting=12", "--state-memory-mb=64"),
        *("--log-format=json", "--log-level=debug"),
        environment=ALLOCATOR,
    )


def learn_answers(
    program: str, repository: pathlib.Path, stubs: tuple[ModuleType, ModuleType], seed: int
) -> Answers:
    server = start_server(program, repository)
    try:
        with grpc.insecure_channel(server.target) as channel:
            oracle = Oracle(stubs, channel)
            rng = random.Random(seed)
            return learn(oracle, ["tiny", "demo"], "demo", held_out_images(), rng)
    finally:
        server.terminate()


class Soak:
    def __init__(
        self, server: Evaserve, stubs: tuple[ModuleType, ModuleType], answers: Answers, seed: int
    ) -> None:
        self.server, self.stubs, self.answers, self.seed = server, stubs, answers, seed
        self.ledger = Ledger()
        self.files = server.metric("process_open_fds")
        self.memory_mib: list[float] = []  # when idle after each round
        self.threads: list[int] = []

    def caller(self, name: str) -> Caller:
        return Caller(name, self.server.target, self.stubs, self.answers, self.ledger)

    async def guard(self, name: str, work: Awaitable[None], limit_s: float = HUNG_S) -> bool:
        """Whether it went well; if not, that is told in the ledger."""
        try:
            async with asyncio.timeout(limit_s):
                await work
            return True
        except Wrong as wrong:
            self.ledger.fault(f"{name}: {wrong}")
        except TimeoutError:
            self.ledger.fault(f"{name}: not over after {limit_s:.0f} s")
        except Exception as error:  # a fault of the soak, or what no client should ever see
            self.ledger.fault(f"{name}: {error!r}")
        return False

    async def repeat(self, caller: Caller, kinds: dict[Kind, float], end: float) -> None:
        """Random ones of `kinds` until the loop's time is `end`."""
        loop = asyncio.get_running_loop()
        while loop.time() < end and not self.ledger.faults:
            (kind,) = caller.rng.choices(list(kinds), list(kinds.values()))
            if await self.guard(f"{caller.name} {kind.__name__}", kind(caller)):
                self.ledger.kinds[kind.__name__] += 1

    async def round(self, number: int, seconds: float) -> None:
        end = asyncio.get_running_loop().time() + seconds
        name = f"{self.seed}-{number}"
        callers = [self.caller(f"{name}-{i}") for i in range(CALLERS)]
        admin, watcher = self.caller(f"{name}-admin"), self.caller(f"{name}-watch")
        limit_s = seconds + HUNG_S
        await asyncio.gather(
            *(self.repeat(caller, KINDS, end) for caller in callers),
            self.repeat(admin, {background.change_models: 1}, end),
            *(
                self.guard("watch", background.watch(watcher, service, seconds), limit_s)
                for service in ("", "tiny", "demo")
            ),
            self.guard("scrape", background.scrape(self.server, self.ledger, end), limit_s),
        )
        await self.guard("renew", background.renew(admin, ("tiny", "demo", "coming")))
        for caller in (*callers, admin, watcher):
            await caller.close()

    async def wait_until_idle(self) -> None:
        end = time.monotonic() + QUIET_S
        while busy := self._what_is_left():
            if time.monotonic() > end:
                self.ledger.fault(f"still there {QUIET_S:.0f} s after the last call: {busy}")
                return
            await asyncio.sleep(0.1)

    def _what_is_left(self) -> dict[str, float]:
        left = {name: self.server.metric(f"evaserve_{name}") for name in IDLE}
        left["open files"] = self.server.metric("process_open_fds") - self.files
        return {name: value for name, value in left.items() if value > 0}

    async def measure(self) -> None:
        """What is leaked stays, so of some moments the one with the least counts."""
        moments = []
        for _ in range(MEMORY_MOMENTS):
            samples = []
            for _ in range(MEMORY_SAMPLES):
                samples.append(self.server.metric("process_resident_memory_bytes") / (1 << 20))
                await asyncio.sleep(0.05)
            moments.append(statistics.median(samples))
        self.memory_mib.append(min(moments))
        self.threads.append(int(self.server.metric("process_threads")))

    async def run(self, seconds: float) -> None:
        rounds = max(3, min(MOST_ROUNDS, int(seconds / SHORTEST_ROUND_S)))
        for number in range(rounds):
            await self.round(number, seconds / rounds)
            await self.wait_until_idle()
            await self.measure()
            print(f"round {number + 1} of {rounds}: {self.memory_mib[-1]:.1f} MiB", flush=True)
            if self.ledger.faults:
                return

    def check_memory(self, growth: float) -> None:
        """The first third of the rounds is warm-up; the rest has two halves."""
        warm = self.memory_mib[len(self.memory_mib) // 3 :]
        middle = len(warm) // 2
        before, after = statistics.median_low(warm[:middle]), statistics.median_low(warm[middle:])
        if after > before * (1 + growth):
            series = ", ".join(f"{mib:.1f}" for mib in self.memory_mib)
            self.ledger.fault(f"memory grows by more than {growth:.0%}; MiB when idle: {series}")

    def check_kinds(self) -> None:
        for kind in (*KINDS, background.change_models):
            if self.ledger.kinds[kind.__name__] == 0:
                self.ledger.fault(f"there was no {kind.__name__}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evaserve", required=True, help="path of the program")
    parser.add_argument("--write-random-model", required=True, help="path of the program")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument(
        "--memory-growth", type=float, default=MEMORY_GROWTH, help="that is allowed; inf: any"
    )
    args = parser.parse_args()
    print(f"seed {args.seed}", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        make_stubs(folder / "stubs")
        stubs = load_stubs(folder / "stubs")
        write_repository(folder / "repository", args.write_random_model)
        answers = learn_answers(args.evaserve, folder / "repository", stubs, args.seed)
        server = start_server(args.evaserve, folder / "repository")
        soak = Soak(server, stubs, answers, args.seed)
        metrics = []
        try:
            asyncio.run(soak.run(args.seconds))
            metrics = server.metrics()
        except OSError as error:
            soak.ledger.fault(f"no metrics: {error}")
        finally:
            exit_code = server.terminate()
    if exit_code != 0:
        soak.ledger.fault(f"the server ended with {exit_code}; its log's end:")
        soak.ledger.faults.extend(server.log[-5:])
    if not soak.ledger.faults:  # a run that was cut short has counted less
        soak.ledger.check(metrics, server.log)
        soak.check_memory(args.memory_growth)
        soak.check_kinds()
    print(soak.ledger.summary())
    print(f"MiB when idle {[round(mib, 1) for mib in soak.memory_mib]}, threads {soak.threads}")
    for fault in soak.ledger.faults:
        print(f"WRONG: {fault}")
    return 1 if soak.ledger.faults else 0


if __name__ == "__main__":
    sys.exit(main())
