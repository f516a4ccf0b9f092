"""The golden data: what the published code computes (EVASERVE_GOLDEN_DIR, or the folder beside the
repository)."""

import json
import os
import pathlib

import pytest

import safetensors_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = pathlib.Path(os.environ.get("EVASERVE_GOLDEN_DIR") or ROOT.parent / "shared" / "golden")


def path_of(name: str) -> pathlib.Path:
    """Skips the test where there is no golden data."""
    if not FOLDER.is_dir():
        pytest.skip(f"no golden data in {FOLDER}")
    return FOLDER / name


def read_json(name: str) -> dict:
    return json.loads(path_of(name).read_text())


def read_tensors(name: str) -> dict:
    return safetensors_file.read(path_of(name))
