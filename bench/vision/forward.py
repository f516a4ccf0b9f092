#!/usr/bin/env python3
"""An EVA-ViT's forward pass on one thread: ours beside PyTorch's, of the same random weights.

    scripts/setup.sh --test && scripts/build.sh release    # first
    .deps/pytorch/bin/python bench/vision/forward.py [--checkout FOLDER] [--size tiny] [--patch 8]

FOLDER is a checkout of the authors' code (HKUNLP/efficient-attention, with timm and einops
installed): the peer is then their module. Without it, it is tools/train_digits/model.py, which
equals theirs on the golden files. Each round runs all in turn, in CPU time of one thread; a ratio
is the median of the rounds' ratios. The logits of all are compared before any time is told.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy
import torch

import random_models

# Of logits near 1. bfloat16 rounds each weight and activation to 8 bits.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}


def peer_of(args: argparse.Namespace, module: torch.nn.Module, config: dict) -> torch.nn.Module:
    if args.checkout is None:
        return module
    import verify

    official = verify.classifier(verify.modules_of(args.checkout), verify.arguments_of(config))
    tensors = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    return verify.load(official, tensors, "the random model")


def time_torch(peer: torch.nn.Module, pixels: torch.Tensor) -> tuple[float, numpy.ndarray]:
    with torch.inference_mode():
        begin = time.process_time()
        logits = peer(pixels)
        return time.process_time() - begin, logits.numpy()


def time_ours(
    args: argparse.Namespace, folder: pathlib.Path, dtype: str
) -> tuple[float, numpy.ndarray]:
    logits = folder / "logits"
    command = [args.build / "bench/vision/vision_bench", folder, "--dtype", dtype]
    command += ["--pixels", folder / "pixels", "--logits", logits, "--passes", "3"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    values = numpy.fromfile(logits, dtype=numpy.float32)
    return statistics.median(told["seconds"]), values.reshape(told["batch"], -1)


def check(dtype: str, logits: numpy.ndarray, expected: numpy.ndarray) -> None:
    error = numpy.abs(logits - expected).max() / numpy.abs(expected).max()
    if not error <= TOLERANCE[dtype]:
        sys.exit(f"{dtype}: logits differ by {error:.2g} of the largest")


def measure(args: argparse.Namespace, folder: pathlib.Path) -> None:
    config = random_models.config_of(args)
    module = random_models.random_model(config)
    random_models.write_model(module, config, folder)
    pixels = torch.randn(
        (args.batch, 3, random_models.IMAGE_SIZE, random_models.IMAGE_SIZE),
        generator=torch.Generator().manual_seed(1),
    )
    pixels.numpy().tofile(folder / "pixels")
    peer = peer_of(args, module, config)
    programs: dict[str, Callable] = {"pytorch": lambda: time_torch(peer, pixels)}
    for dtype in TOLERANCE:
        programs[dtype] = lambda dtype=dtype: time_ours(args, folder, dtype)
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for i in range(args.rounds + 1):
        for name, run in programs.items():
            took, logits = run()
            if name == "pytorch":
                expected = logits
            else:
                check(name, logits, expected)
            if i > 0:  # the first round warms up
                seconds[name].append(took)
    for name, times in seconds.items():
        ratios = [a / b for a, b in zip(seconds["pytorch"], times, strict=True)]
        print(
            f"{name:10} {args.batch / statistics.median(times):7.2f} images/s"
            f" {statistics.median(ratios):6.2f}x pytorch"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--build", type=pathlib.Path, default=random_models.ROOT / "build/release")
    parser.add_argument("--checkout", type=pathlib.Path, help="of the authors' code")
    random_models.add_size(parser, patch=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    peer = "the authors' module" if args.checkout else "tools/train_digits/model.py"
    print(f"EVA-DeiT-{args.size}/{args.patch}, batch {args.batch}, one thread; pytorch: {peer}")
    with tempfile.TemporaryDirectory() as folder:
        measure(args, pathlib.Path(folder))


if __name__ == "__main__":
    main()
