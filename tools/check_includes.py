#!/usr/bin/env python3
"""Fails if a file includes what its folder must not see (docs/architecture.md, the table of rooms).

Installed headers are visible to every CMake target, so the build alone would not notice.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

TORCH = ("torch/", "ATen/", "c10/")
CUDA = ("cuda", "cublas", "cute/")
RPC = ("grpc", "google/protobuf/", "inference/", "evaserve/v1/")
PROMETHEUS = ("prometheus/", "civetweb", "CivetServer")

# For each folder, longest path first: what its files never include.
RULES = [
    (
        "server/engine",
        TORCH + CUDA + RPC + PROMETHEUS + ("server/rpc", "server/metrics", "server/repository"),
    ),
    ("server/repository", TORCH + CUDA + RPC + PROMETHEUS + ("server/rpc", "server/metrics")),
    ("server/metrics", TORCH + CUDA + RPC + ("server/rpc",)),
    ("server", TORCH + CUDA),
    ("models/package/torch", RPC + PROMETHEUS + ("server/", "client/", "tests/")),
    ("models", TORCH + RPC + PROMETHEUS + ("server/", "client/", "tests/")),
    ("kernels", TORCH + RPC + PROMETHEUS + ("models/", "server/", "client/", "tests/")),
    ("client", TORCH + CUDA + PROMETHEUS + ("kernels/", "models/", "server/")),
]
# How the names of files begin that exist to cross a line.
EXCEPTIONS = {"kernels/torch_ops": TORCH}
# Tests of a room may use the fakes.
TEST_ONLY = ("tests/fakes/",)

INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)


def forbidden(path: str) -> tuple[str, ...]:
    allowed = [p for name, crossed in EXCEPTIONS.items() if path.startswith(name) for p in crossed]
    for folder, never in RULES:
        if path.startswith(folder + "/"):
            return tuple(p for p in never if p not in allowed)
    return ()


def main() -> int:
    wrong = []
    for file in sorted(ROOT.glob("[a-z]*/**/*")):
        if file.suffix not in (".h", ".cc", ".cu", ".cuh") or "build" in file.parts:
            continue
        path = file.relative_to(ROOT).as_posix()
        never = forbidden(path)
        for include in INCLUDE.findall(file.read_text()):
            allowed = "_test." in path and include.startswith(TEST_ONLY)
            if include.startswith(never) and never and not allowed:
                wrong.append(f"{path}: must not include {include}")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
