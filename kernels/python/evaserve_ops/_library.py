"""Loads torch.ops.eva."""

import pathlib

import torch

# The version of LibTorch whose C++ interface the library uses.
TORCH_VERSION = "2.11"
LIBRARY = pathlib.Path(__file__).with_name("libevaserve_torch_ops.so")


def _load() -> None:
    if not torch.__version__.startswith(TORCH_VERSION + "."):
        raise ImportError(f"evaserve-ops is for torch {TORCH_VERSION}, this is {torch.__version__}")
    try:
        torch.ops.load_library(LIBRARY)
    except OSError as error:
        raise ImportError(f"evaserve-ops cannot load {LIBRARY}: {error}") from error


_load()
