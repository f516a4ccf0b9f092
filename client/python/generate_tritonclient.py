#!/usr/bin/env python3
"""Streams a completion through tritonclient, as from any server of the Open Inference Protocol.

    client/python/generate_tritonclient.py "Once upon a time" --model demo --server localhost:8001
"""

import argparse
import queue
import sys

import connection
import numpy
import tritonclient.grpc as triton


def text_input(text):
    tensor = triton.InferInput("text_input", [1], "BYTES")
    tensor.set_data_from_numpy(numpy.array([text], dtype=object))
    return tensor


def is_final(result):
    return result.get_response().parameters["triton_final_response"].bool_param


def generate(client, model, prompt, parameters, headers=None):
    """Yields the answer's bytes as they come. `headers` go with the call."""
    results = queue.Queue()
    client.start_stream(
        callback=lambda result, error: results.put((result, error)), headers=headers
    )
    try:
        client.async_stream_infer(model, inputs=[text_input(prompt)], parameters=parameters)
        while True:
            result, error = results.get()
            if error is not None:
                raise error
            yield result.as_numpy("text_output")[0]
            if is_final(result):
                return
    finally:
        client.stop_stream()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompt", type=str.encode)
    parser.add_argument("--model", required=True)
    connection.add_arguments(parser)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--temperature", type=float, default=0.7)
    args = parser.parse_args()

    parameters = {"max_tokens": args.max_tokens, "temperature": args.temperature}
    headers, tls = connection.headers(args), connection.credentials(args)
    with triton.InferenceServerClient(args.server, creds=tls) as client:
        for text in generate(client, args.model, args.prompt, parameters, headers):
            sys.stdout.buffer.write(text)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
