#!/usr/bin/env python3
"""Images per second through a server, 32 in flight: ours beside MLServer's with the same model in
TorchScript, which ours serves too.

    scripts/setup.sh --test && scripts/build.sh release    # first
    .venv/bin/python bench/vision/serving.py [--size tiny] [--patch 16]

One client, tritonclient, sends every server the same pixels, one image a request, and checks each
answer. Each round calls every server in turn for --seconds; a ratio is the median of the rounds'
ratios. The load runs on the same cores. Ends with 1 unless our faster type is fast enough.
"""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import numpy
import tritonclient.grpc as triton

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "bench/overhead"))

import servers  # noqa: E402

TORCH = ROOT / ".deps/pytorch"
IN_FLIGHT = 32
NUM_IMAGES = 8  # different ones
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.15}  # of the largest logit
TARGET = 2  # times MLServer's


def mlserver(folder: pathlib.Path, batch: int) -> contextlib.AbstractContextManager:
    python = ROOT / ".deps/mlserver/bin/python"
    packages = next(TORCH.glob("lib/python*/site-packages"), None)
    if not python.exists() or packages is None:
        raise servers.CannotStart("not installed, run scripts/setup.sh --test")
    script = pathlib.Path(__file__).with_name("mlserver_torchscript.py")
    command = ["env", f"PYTHONPATH={packages}", python, "-B", script]
    command += [folder / "model.pt", os.cpu_count(), batch]
    return servers.telling_server(f"mlserver, batches of {batch}", command, folder)


class Load:
    """Keeps requests in flight at one server."""

    def __init__(self, name: str, target: str, pixels: numpy.ndarray):
        self.name = name
        self.client = triton.InferenceServerClient(target)
        self.inputs = []
        for image in pixels:
            tensor = triton.InferInput("pixel_values", [1, *image.shape], "FP32")
            tensor.set_data_from_numpy(image[None])
            self.inputs.append([tensor])
        self.outputs = [triton.InferRequestedOutput("logits")]

    def logits(self) -> numpy.ndarray:
        results = [self.client.infer("model", one, outputs=self.outputs) for one in self.inputs]
        return numpy.concatenate([result.as_numpy("logits") for result in results])

    def images_per_second(self, seconds: float) -> float:
        free, lock, answers, errors = threading.Semaphore(IN_FLIGHT), threading.Lock(), [], []

        def take(result: triton.InferResult | None, error: Exception | None) -> None:
            with lock:
                (answers if error is None else errors).append(error)
            free.release()

        begin = time.monotonic()
        sent = 0
        while time.monotonic() < begin + seconds:
            free.acquire()
            one = self.inputs[sent % len(self.inputs)]
            self.client.async_infer("model", one, callback=take, outputs=self.outputs)
            sent += 1
        for _ in range(IN_FLIGHT):
            free.acquire()
        took = time.monotonic() - begin
        if errors:
            raise SystemExit(f"{self.name}: {len(errors)} calls failed: {errors[0]}")
        return len(answers) / took


def evaserve_torchscript(
    args: argparse.Namespace, folder: pathlib.Path
) -> contextlib.AbstractContextManager:
    """Ours with the TorchScript model as a package, in batches as MLServer's largest."""
    package = folder / "package"
    package.mkdir()
    (package / "model.pt").symlink_to(folder / "model" / "model.pt")
    pixels = {"name": "pixel_values", "datatype": "FP32", "shape": [-1, 3, 224, 224]}
    logits = {"name": "logits", "datatype": "FP32", "shape": [-1, 1000]}
    config = {"model_type": "torchscript", "inputs": [pixels], "outputs": [logits]}
    (package / "config.json").write_text(json.dumps(config))
    (package / "serving.json").write_text(json.dumps({"max_batch_size": 8}))
    options = [f"--model=model={package}", "--allow-packages"]
    return servers.evaserve_with(args.build, folder, "evaserve-torchscript", options)


def start_all(
    args: argparse.Namespace, folder: pathlib.Path, stack: contextlib.ExitStack
) -> dict[str, str]:
    """Targets of those that start, by name."""
    model = folder / "model"
    starts = {
        f"mlserver, batches of {batch}": lambda batch=batch: mlserver(model, batch)
        for batch in (1, 8)
    }
    for dtype in TOLERANCE:
        starts[f"evaserve {dtype}"] = lambda dtype=dtype: servers.evaserve_with(
            args.build, folder, f"evaserve-{dtype}", [f"--model=model={model}", f"--dtype={dtype}"]
        )
    starts["torchscript in evaserve"] = lambda: evaserve_torchscript(args, folder)
    targets = {}
    for name, start in starts.items():
        try:
            targets[name] = stack.enter_context(start()).target
        except servers.CannotStart as error:
            print(f"{name}: {error}", file=sys.stderr)
    return targets


def check(loads: dict[str, Load]) -> None:
    """All give the same logits."""
    logits = {name: load.logits() for name, load in loads.items()}
    expected = next(iter(logits.values()))
    for name, got in logits.items():
        tolerance = TOLERANCE.get(name.removeprefix("evaserve "), TOLERANCE["float32"])
        error = numpy.abs(got - expected).max() / numpy.abs(expected).max()
        if not error <= tolerance:
            raise SystemExit(f"{name}: logits differ by {error:.2g} of the largest")


def measure(args: argparse.Namespace, folder: pathlib.Path) -> bool:
    python = [TORCH / "bin/python", "-B", pathlib.Path(__file__).with_name("random_models.py")]
    size = ["--size", args.size, "--patch", str(args.patch)]
    subprocess.run([*python, folder / "model", *size], check=True)
    pixels = numpy.random.default_rng(1).standard_normal((NUM_IMAGES, 3, 224, 224), numpy.float32)
    rates: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        loads = {n: Load(n, target, pixels) for n, target in start_all(args, folder, stack).items()}
        check(loads)
        for i in range(args.rounds + 1):
            for name, load in loads.items():
                rate = load.images_per_second(args.seconds)
                if i > 0:  # the first round warms up
                    rates.setdefault(name, []).append(rate)
    peers = [values for name, values in rates.items() if name.startswith("mlserver")]
    best = [max(round_) for round_ in zip(*peers, strict=True)]
    met = False
    for name, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(values, best, strict=True)) if best else 0
        rate = statistics.median(values)
        print(f"{name:24} {rate:8.2f} images/s {ratio:6.2f}x the best mlserver")
        met = met or (name.startswith("evaserve") and ratio >= TARGET)  # of our own model
    return met


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    parser.add_argument("--size", choices=["tiny", "small", "base"], default="tiny")
    parser.add_argument("--patch", type=int, choices=[8, 16], default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    args = parser.parse_args()
    print(f"EVA-DeiT-{args.size}/{args.patch}, {IN_FLIGHT} in flight, one image a request")
    with tempfile.TemporaryDirectory() as folder:
        return 0 if measure(args, pathlib.Path(folder)) else 1


if __name__ == "__main__":
    sys.exit(main())
