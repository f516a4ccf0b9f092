#!/usr/bin/env python3
"""Has evaserve load a model of its repository, and unload it again; prints how long loading took.

    .venv/bin/python bench/overhead/load_model.py HOST:PORT MODEL [--after SECONDS]
"""

import argparse
import time

import tritonclient.grpc as triton


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target")
    parser.add_argument("model")
    parser.add_argument("--after", type=float, default=0, help="seconds")
    args = parser.parse_args()
    with triton.InferenceServerClient(args.target) as client:
        time.sleep(args.after)
        begin = time.perf_counter()
        client.load_model(args.model)
        print(f"{time.perf_counter() - begin:.3f}")
        client.unload_model(args.model)


if __name__ == "__main__":
    main()
