#!/usr/bin/env python3
"""Has evaserve load a model of its repository and unload it, again and again, until its standard
input ends; prints how often.

    .venv/bin/python bench/overhead/load_model.py HOST:PORT MODEL

Says "ready" before: else Python's own start would run beside what is measured meanwhile.
"""

import argparse
import select
import sys

import tritonclient.grpc as triton


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target")
    parser.add_argument("model")
    args = parser.parse_args()
    with triton.InferenceServerClient(args.target) as client:
        client.is_server_ready()
        print("ready", flush=True)
        loads = 0
        while loads == 0 or not select.select([sys.stdin], [], [], 0)[0]:
            client.load_model(args.model)
            client.unload_model(args.model)
            loads += 1
        print(loads)


if __name__ == "__main__":
    main()
