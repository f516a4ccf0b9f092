#!/usr/bin/env python3
"""What other attention kernels make of gpu_bench's batches. One JSON object a line.

    baselines.py [--device cpu --small]     the latter to see that it runs; no figure means anything

Every answer is compared with a plain one in float32 before the time is taken; one that is wrong
has an error instead of a time. Of several variants of a baseline the fastest is reported.
"""

import argparse
import importlib
import json
import time

import torch
from slots import Batch, Call, Slots, batches, small_batches

# Of sqrt(mean(answer^2)): weights and answers are rounded to bfloat16.
TOLERANCE = 1e-2

# name, module, function; what it cannot be without
BASELINES = (
    ("flash", "torch_baseline", "flash", "torch"),
    ("cudnn", "torch_baseline", "cudnn", "torch"),
    ("flash varlen", "torch_baseline", "varlen", "torch"),
    ("triton", "triton_baseline", "official_tiling", "triton"),
    ("flashinfer", "flashinfer_baseline", "ragged_and_paged", "flashinfer"),
)


def print_line(line: dict) -> None:
    print(json.dumps(line), flush=True)


def as_graph(call: Call) -> Call:
    """The same without the time that Python takes; as it is if it cannot be recorded."""
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
    except RuntimeError:
        torch.cuda.synchronize()
        return call
    return graph.replay


def microseconds(call: Call, device: str, repeats: int = 20) -> float:
    """Of one call: the fastest of five runs."""

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    best = float("inf")
    for _ in range(5):
        wait()
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        wait()
        best = min(best, (time.perf_counter() - start) / repeats)
    return best * 1e6


def measure(slots: Slots, name: str, offer, exact: torch.Tensor) -> dict:
    """A line: the fastest variant that is right, or why there is none."""
    line = slots.batch.name() | {"backend": name}
    errors = []
    for variant, prepare in offer(slots).items():
        # Libraries raise what they like: a batch, device or build that they do not serve.
        try:
            call = prepare()
            error = ((call().float() - exact).norm() / exact.norm()).item()
            if not error < TOLERANCE:
                raise ValueError(f"the answer is {error:.1e} off")
            timed = as_graph(call) if slots.device == "cuda" else call
            time_us = microseconds(timed, slots.device, 20 if slots.device == "cuda" else 1)
        except Exception as error:
            errors.append(
                f"{variant} {type(error).__name__}: {error}".strip().splitlines()[0][:200]
            )
            continue
        if time_us < line.get("attend_us", float("inf")):
            line |= {"variant": variant, "attend_us": round(time_us, 1)}
    if errors:
        line["errors"] = errors
    return line


def installed() -> dict:
    """The baselines that can be imported; a line for each that cannot."""
    offers = {}
    for name, module, function, package in BASELINES:
        try:
            importlib.import_module(package)
            offers[name] = getattr(importlib.import_module(module), function)
        except ImportError as error:
            print_line({"backend": name, "skipped": f"{package} cannot be imported: {error}"})
    return offers


def measure_all(batch: Batch, offers: dict, device: str) -> None:
    # Triton's interpreter multiplies the bits of bfloat16.
    slots = Slots(batch, device, torch.bfloat16 if device == "cuda" else torch.float16)
    exact = slots.exact()
    for name, offer in offers.items():
        if offer(slots):
            print_line(measure(slots, name, offer, exact))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    device = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    print_line({"device": device, "torch": torch.__version__})
    offers = installed()
    for batch in small_batches() if args.small else batches():
        measure_all(batch, offers, args.device)


if __name__ == "__main__":
    main()
