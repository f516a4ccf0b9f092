#!/usr/bin/env python3
"""Has evaserve load a model of its repository, and unload it again; prints how long loading took.

    .venv/bin/python bench/overhead/load_model.py HOST:PORT MODEL [--after SECONDS]

Says "ready" before, and ends with its standard input: else Python's own start and end would run
beside what is measured meanwhile.
"""

import argparse
import sys
import time

import tritonclient.grpc as triton


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target")
    parser.add_argument("model")
    parser.add_argument("--after", type=float, default=0, help="seconds")
    args = parser.parse_args()
    with triton.InferenceServerClient(args.target) as client:
        client.is_server_ready()
        print("ready", flush=True)
        time.sleep(args.after)
        begin = time.perf_counter()
        client.load_model(args.model)
        print(f"{time.perf_counter() - begin:.3f}")
        client.unload_model(args.model)
        sys.stdin.read()


if __name__ == "__main__":
    main()
