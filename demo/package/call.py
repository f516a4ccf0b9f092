#!/usr/bin/env python3
"""Asks evaserve for the logits of the example's images and compares them with PyTorch's.

    call.py HOST:PORT MODEL EXAMPLE.npz       needs tritonclient[grpc]
"""

import sys

import numpy
import tritonclient.grpc as triton

TOLERANCE = 1e-4  # of logits near 1: float32, sums in another order


def main() -> None:
    target, model, path = sys.argv[1:]
    example = numpy.load(path)
    pixels = example["pixel_values"]
    tensor = triton.InferInput("pixel_values", pixels.shape, "FP32")
    tensor.set_data_from_numpy(pixels)
    with triton.InferenceServerClient(target) as client:
        logits = client.infer(model, [tensor]).as_numpy("logits")
    error = numpy.abs(logits - example["logits"]).max()
    print(f"{model}: {len(logits)} images, largest difference from PyTorch {error:.1e}")
    if not error <= TOLERANCE:
        sys.exit(f"more than {TOLERANCE}")


if __name__ == "__main__":
    main()
