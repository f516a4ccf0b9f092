#!/usr/bin/env python3
"""Has evaserve load a model of its repository and unload it, again and again, until its standard
input ends; prints how often.

    .venv/bin/python bench/overhead/load_model.py HOST:PORT MODEL [--every SECONDS]

Says "ready" before: else Python's own start would run beside what is measured meanwhile.
"""

import argparse
import select
import sys
import time

import tritonclient.grpc as triton


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target")
    parser.add_argument("model")
    parser.add_argument("--every", type=float, default=0, help="seconds from load to load")
    args = parser.parse_args()
    with triton.InferenceServerClient(args.target) as client:
        client.is_server_ready()
        print("ready", flush=True)
        loads = 0
        pause_s = 0.0
        while loads == 0 or not select.select([sys.stdin], [], [], pause_s)[0]:
            begin = time.monotonic()
            client.load_model(args.model)
            client.unload_model(args.model)
            loads += 1
            pause_s = max(0, begin + args.every - time.monotonic())
        print(loads)


if __name__ == "__main__":
    main()
