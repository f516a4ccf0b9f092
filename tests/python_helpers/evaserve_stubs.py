"""The stubs of evaserve.v1, made as a user makes them."""

import os
import pathlib
import subprocess
import sys
from types import ModuleType

MAKE_STUBS = pathlib.Path(__file__).resolve().parents[2] / "client" / "python" / "make_stubs.sh"


def make_stubs(folder: pathlib.Path) -> None:
    environment = dict(os.environ, PYTHON=sys.executable)
    subprocess.run([MAKE_STUBS, folder], check=True, env=environment)


def load_stubs(folder: pathlib.Path) -> tuple[ModuleType, ModuleType]:
    """What make_stubs() has made: inference_pb2, inference_pb2_grpc."""
    sys.path.insert(0, str(folder))
    from evaserve.v1 import inference_pb2, inference_pb2_grpc

    return inference_pb2, inference_pb2_grpc
