"""tools/convert/verify.py with a checkout of the published code: EVASERVE_PUBLISHED_CODE names it.
Needs timm and einops, which are in no environment of ours."""

import json
import os
import subprocess
import sys

import convert
import golden
import numpy
import pytest
import safetensors_file
import torch
from test_convert import MODELS, options_for

CHECKOUT = os.environ.get("EVASERVE_PUBLISHED_CODE")
pytestmark = pytest.mark.skipif(not CHECKOUT, reason="EVASERVE_PUBLISHED_CODE is not set")
VERIFY = golden.ROOT / "tools" / "convert" / "verify.py"


@pytest.fixture(params=MODELS)
def converted(request, tmp_path):
    path, out = tmp_path / "checkpoint.pt", tmp_path / "model"
    torch.save(MODELS[request.param](request.param), path)
    assert convert.main([str(path), "--out", str(out), *options_for(request.param)]) == 0
    return path, out


def verify(path, out) -> subprocess.CompletedProcess:
    command = [sys.executable, "-B", VERIFY, path, out, "--checkout", CHECKOUT]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_published_code_computes_the_same(converted):
    path, out = converted
    run = verify(path, out)
    assert run.returncode == 0, run.stderr
    if (out / "cases.json").exists():
        tensors = safetensors_file.read(out / "cases.safetensors")
        assert numpy.isfinite(tensors["c0.logits"]).all()


def test_another_window_is_noticed(converted):
    path, out = converted
    config = json.loads((out / "config.json").read_text())
    key = "chunk_size" if "chunk_size" in config["attn"] else "num_landmarks"
    config["attn"][key] = 2 if key == "chunk_size" else 1
    (out / "config.json").write_text(json.dumps(config))
    run = verify(path, out)
    assert run.returncode == 2
    assert "differs by up to" in run.stderr


def test_another_weight_is_noticed(converted):
    path, out = converted
    tensors = safetensors_file.read(out / "model.safetensors")
    name = next(n for n in tensors if n.endswith("adaptive_mu_k.0.bias"))
    tensors[name] = tensors[name] + numpy.float32(1)
    safetensors_file.write(out / "model.safetensors", tensors)
    run = verify(path, out)
    assert run.returncode == 2
    assert "differs by up to" in run.stderr
