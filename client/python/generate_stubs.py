#!/usr/bin/env python3
"""Streams a completion through stubs generated from proto/.

    client/python/make_stubs.sh
    client/python/generate_stubs.py "Once upon a time" --server localhost:8001
"""

import argparse
import pathlib
import sys

import connection

sys.path.insert(0, str(pathlib.Path(__file__).parent / "generated"))
from evaserve.v1 import inference_pb2, inference_pb2_grpc


def generate(channel, prompt, max_tokens, temperature, headers):
    """Yields the answer's bytes as they come. `headers` go with the call."""
    request = inference_pb2.GenerateRequest(
        prompt=prompt,
        sampling=inference_pb2.SamplingParameters(temperature=temperature),
        stopping=inference_pb2.StoppingCriteria(max_new_tokens=max_tokens),
    )
    stub = inference_pb2_grpc.InferenceStub(channel)
    for response in stub.Generate(request, metadata=list(headers.items())):
        yield response.text


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompt", type=str.encode)
    connection.add_arguments(parser)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--temperature", type=float, default=0.7)
    args = parser.parse_args()

    headers = connection.headers(args)
    with connection.channel(args) as channel:
        for text in generate(channel, args.prompt, args.max_tokens, args.temperature, headers):
            sys.stdout.buffer.write(text)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
