#!/usr/bin/env python3
"""As overhead_load, with tritonclient: calls, checks, and prints one line of JSON.

    .venv/bin/python bench/overhead/triton_load.py HOST:PORT
"""

import argparse
import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tritonclient.grpc as grpcclient


def call(client: grpcclient.InferenceServerClient, model: str, values: np.ndarray) -> None:
    given = grpcclient.InferInput("INPUT0", list(values.shape), "FP32")
    given.set_data_from_numpy(values)
    out = client.infer(model, [given]).as_numpy("OUTPUT0")
    np.testing.assert_array_equal(out, values)


def call_until(end: float, args: argparse.Namespace) -> list[float]:
    """How many us each call took."""
    values = np.random.default_rng(1).random((1, args.elements), dtype=np.float32)
    latencies_us = []
    with grpcclient.InferenceServerClient(args.target) as client:
        while (begin := time.perf_counter()) < end:
            values[0, 0] += 1  # no two requests are alike
            call(client, args.model, values)
            latencies_us.append((time.perf_counter() - begin) * 1e6)
    return latencies_us


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", help="HOST:PORT")
    parser.add_argument("--model", default="identity")
    parser.add_argument("--elements", type=int, default=256)
    parser.add_argument("--concurrency", type=int, default=1, help="threads")
    parser.add_argument("--seconds", type=float, default=1)
    args = parser.parse_args()

    begin = time.perf_counter()
    with ThreadPoolExecutor(args.concurrency) as pool:
        ends = [begin + args.seconds] * args.concurrency
        latencies_us = sum(pool.map(lambda end: call_until(end, args), ends), [])
    seconds = time.perf_counter() - begin
    cuts = statistics.quantiles(latencies_us, n=100, method="inclusive")
    line = {"concurrency": args.concurrency, "requests": len(latencies_us)}
    line |= {"requests_per_s": len(latencies_us) / seconds, "p50_us": cuts[49], "p99_us": cuts[98]}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
